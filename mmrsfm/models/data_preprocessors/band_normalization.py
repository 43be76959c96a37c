# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the data preprocessors share: the contract, and normalisation of any number of bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmrsfm.contract import ImageryContract
from mmrsfm.errors import BandMismatchError, ConfigError, ContractError

INVALID = ('mean', 'nan')


class BandNormalization:
    """Mixin of a data preprocessor: ``.contract``, checks of samples, and normalisation.

    ``value = (stored * scale + offset - mean) / std`` for each band, on the device; what is
    invalid becomes 0, the mean of its band, or NaN.
    """

    contract: ImageryContract
    scale_on_device: bool
    mean: Tensor
    std: Tensor
    sensor_mean: Tensor
    sensor_std: Tensor
    factor: Tensor
    summand: Tensor
    fill_value: float = 0.0

    def _set_contract(
        self,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        band_names: Sequence[str] | None,
        sensor: str | None,
        scale: float | Sequence[float] | None,
        offset: float | Sequence[float] | None,
        gsd: float | None,
        licence: str | None,
        scale_on_device: bool,
        sensors: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            raise ConfigError('data_preprocessor: give both mean and std, or neither')
        if scale_on_device and scale is None:
            raise ConfigError('data_preprocessor: scale_on_device needs scale')
        self.contract = ImageryContract(
            band_names=None if band_names is None else tuple(band_names),
            sensor=sensor,
            scale=scale,  # type: ignore[arg-type]
            # What is not added on the device is no secret of the loader's.
            offset=0.0 if scale_on_device and offset is None else offset,  # type: ignore[arg-type]
            gsd=gsd,
            mean=None if mean is None else tuple(float(value) for value in mean),
            std=None if std is None else tuple(float(value) for value in std),
            licence=licence,
            sensors=sensors,  # type: ignore[arg-type]
        )
        rows = self.contract.sensors or {}
        for deviations in [std or (), *(row['std'] for row in rows.values())]:
            if not all(value > 0 and math.isfinite(value) for value in deviations):
                raise ConfigError(
                    f'data_preprocessor: std must be above 0 for every band, got {list(deviations)}'
                )
        self.scale_on_device = scale_on_device
        count = self.contract.num_bands or 1
        for name, values in {
            'mean': mean or [0.0] * count,
            'std': std or [1.0] * count,
            'factor': self.contract.scale or 1.0,
            'summand': self.contract.offset or 0.0,
        }.items():
            tensor = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            # Not persistent: they belong to the config, and would be unexpected keys elsewhere.
            self.register_buffer(name, tensor, False)  # type: ignore[attr-defined]
        self._sensors = {name: number for number, name in enumerate(rows)}
        for key in ('mean', 'std'):
            table = torch.tensor([row[key] for row in rows.values()], dtype=torch.float32)
            self.register_buffer(f'sensor_{key}', table[..., None, None], False)  # type: ignore[attr-defined]
        self._shifts = self.contract.offset not in (None, 0.0)
        self._normalises = mean is not None or bool(rows)

    def _set_invalid(self, invalid: str, padding: float) -> float:
        """Takes the argument ``invalid``, and returns the value of padding that goes with it.

        With ``'nan'`` padding is NaN too: a modality that is missing in an image must not become a
        present one, of nothing but zeros, because other images of the batch are larger.
        """
        if invalid not in INVALID:
            raise ConfigError(
                f'data_preprocessor: invalid must be one of {INVALID}, got {invalid!r}'
            )
        if invalid == 'mean':
            return padding
        if padding != 0.0 and not math.isnan(padding):
            raise ConfigError(
                f"data_preprocessor: invalid='nan' pads with NaN; a padding value of {padding} "
                'contradicts it'
            )
        self.fill_value = math.nan
        return math.nan

    def check_sample(self, channels: int, sample: Any) -> None:
        """Compares one sample with the contract.

        Args:
            channels: Number of channels of its image.
            sample: Its data sample, with what its file says in the meta information; or ``None``.

        Raises:
            BandMismatchError: Other bands, another order or another number of them.
            ContractError: Other units.
        """
        contract = self.contract
        path = _meta(sample, 'img_path')
        names = _meta(sample, 'band_names')
        if contract.num_bands is not None and channels != contract.num_bands:
            raise BandMismatchError(
                f'the image has {channels} channel(s) {_listed(names)}, the data preprocessor '
                f'expects {contract.num_bands} {_listed(contract.band_names)}',
                path=path,
                hint='Choose bands in mmrsfm.LoadMultiBandImage, or correct the data preprocessor',
            )
        both = contract.band_names is not None and names is not None
        if both and tuple(names) != contract.band_names:
            raise BandMismatchError(
                f'its bands are {_listed(names)}, the data preprocessor expects '
                f'{_listed(contract.band_names)}',
                path=path,
                hint='Choose bands=[...] in that order in mmrsfm.LoadMultiBandImage',
            )
        for key, neutral, verb in (('scale', 1.0, 'scaled by'), ('offset', 0.0, 'added')):
            applied, stated = _meta(sample, key), getattr(contract, key)
            if stated is None or applied is None:
                continue
            expected = neutral if self.scale_on_device else stated
            if not _agree(applied, expected):
                raise ContractError(
                    f'{path}: the loader {verb} {applied}, but mean and std of the data '
                    f'preprocessor are for {key}={stated}'
                    f'{" on the device (scale_on_device)" if self.scale_on_device else ""}. '
                    f'Set {key}={expected} in mmrsfm.LoadMultiBandImage.'
                )

    def normalize(
        self,
        images: Tensor,
        valid: Tensor | Sequence[Tensor | None] | None,
        samples: Any = None,
    ) -> tuple[Tensor, Tensor | Sequence[Tensor | None] | None]:
        """Normalises images on their device.

        Args:
            images: (C, H, W) or (B, C, H, W), any real type.
            valid: The validity masks: (C, H, W) bool for one image, or one for each of the batch;
                ``None`` where everything is valid.
            samples: The data sample, or one for each of the batch, with ``sensor`` where the
                statistics are by sensor.

        Returns:
            Images as float32 with 0 (or NaN) where they are invalid, and the masks, to which pixels
            that are not finite were added.
        """
        integer = not images.is_floating_point()
        x = images.float()
        fresh = x is not images  # otherwise the caller's tensor must not be written to
        if not integer and not torch.isfinite(x.sum()):
            finite = torch.isfinite(x)
            if not finite.all():  # the sum of finite numbers can overflow
                x = torch.where(finite, x, torch.zeros((), device=x.device))
                fresh = True
                valid = _add_invalid(valid, finite)
        if self.scale_on_device:
            x = x.mul_(self.factor) if fresh else x * self.factor
            fresh = True
            if self._shifts:
                x.add_(self.summand)
        if self._normalises:
            mean, std = self._statistics(images, samples)
            x = x.sub_(mean) if fresh else x - mean
            x = x.div_(std)
            fresh = True
        if valid is None:
            return x, valid
        x = x if fresh else x.clone()
        if isinstance(valid, Tensor):
            x.masked_fill_(~valid, self.fill_value)
        else:
            for image, mask in zip(x, valid, strict=True):
                if mask is not None:
                    image.masked_fill_(~mask, self.fill_value)
        return x, valid

    def denormalize(
        self, images: Tensor, samples: Any = None, channels: slice = slice(None)
    ) -> Tensor:
        """The inverse of the normalisation: the values that mean and std refer to.

        Args:
            images: (B, C', H, W), normalised.
            samples: The data samples of the batch, with ``sensor`` where the statistics are by
                sensor.
            channels: Which of the bands the C' channels are.

        Returns:
            float32, of the same shape.
        """
        x = images.float()
        if not self._normalises:
            return x
        mean, std = self._statistics(images, samples)
        return x * std[..., channels, :, :] + mean[..., channels, :, :]

    def _statistics(self, images: Tensor, samples: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (C, 1, 1), or (B, C, 1, 1) where the sensors differ."""
        if not self._sensors:
            return self.mean, self.std
        several = images.ndim == 4
        listed = (samples or [None] * len(images)) if several else [samples]
        rows = []
        for sample in listed:
            sensor = _meta(sample, 'sensor')
            if sensor not in self._sensors:
                raise ContractError(
                    f'{_meta(sample, "img_path")}: its sensor is {sensor!r}, but the data '
                    f'preprocessor has statistics for {list(self._sensors)}. Put the sensor into '
                    'the samples (mmrsfm.PairedModalityDataset(sensor=...)), or its statistics '
                    'into sensors=dict(...).'
                )
            rows.append(self._sensors[sensor])
        if len(set(rows)) == 1:
            return self.sensor_mean[rows[0]], self.sensor_std[rows[0]]
        index = torch.tensor(rows, device=self.sensor_mean.device)
        return self.sensor_mean[index], self.sensor_std[index]


def valid_masks(data_samples: Sequence[Any] | None, device: torch.device) -> list[Tensor | None]:
    """The masks of the samples on the device; ``None`` for a sample that is valid everywhere."""
    masks = [getattr(sample, 'valid_mask', None) for sample in data_samples or ()]
    return [None if mask is None else mask.to(device, non_blocking=True) for mask in masks]


def _add_invalid(
    valid: Tensor | Sequence[Tensor | None] | None, finite: Tensor
) -> Tensor | Sequence[Tensor | None]:
    if finite.ndim == 3:
        return finite if valid is None else valid & finite  # type: ignore[operator]
    known = [None] * len(finite) if valid is None else valid
    merged: list[Tensor | None] = []
    for mask, good in zip(known, finite, strict=True):
        if good.all():
            merged.append(mask)
        else:
            merged.append(good if mask is None else mask & good)
    return merged


def _agree(applied: Any, expected: Any) -> bool:
    """Compares one number, or one a band, with one number, or one a band."""
    left = applied if isinstance(applied, (list, tuple)) else (applied,)
    right = expected if isinstance(expected, (list, tuple)) else (expected,)
    if len(left) != len(right):  # one of them holds for every band
        if min(len(left), len(right)) > 1:
            return False
        left, right = left * len(right), right * len(left)
    return all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-12) for a, b in zip(left, right, strict=True)
    )


def _meta(sample: Any, key: str) -> Any:
    return None if sample is None else getattr(sample, key, None)


def _listed(names: Sequence[str] | None) -> str:
    return '(names unknown)' if names is None else f'[{", ".join(names)}]'
