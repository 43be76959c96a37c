# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data preprocessor for classification and pretraining with any number of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models import ClsDataPreprocessor
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.models.data_preprocessors.band_normalization import BandNormalization, valid_masks
from mmrsfm.registry import MODELS


@MODELS.register_module()
class MultiBandDataPreprocessor(BandNormalization, ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor for any number of bands, with a contract and no-data.

    Casts, scales and normalises on the device: ``(stored * scale + offset - mean) / std``.
    Invalid pixels (the samples' ``valid_mask``, and NaN or infinities without one) become 0, the
    mean, or NaN (``invalid``); where pixels are invalid, the sample's ``valid_mask`` (C, H, W) says
    so, on the device and with padding invalid. Labels, one-hot scores and batch augmentations
    (mixup, cutmix) are as there.

    ``inputs`` may be one tensor (B, C, H, W), a list of (C, H, W), or a list of views, each of
    which is one or the other.

    Args:
        mean: Mean of each band, after ``scale`` and ``offset``. ``None``: no normalisation.
        std: Standard deviation of each band, after ``scale`` and ``offset``.
        band_names: Names of the channels, in their order. A sample with other names is an error.
        sensor: Free text, for the contract.
        scale: Factor from stored numbers to the values that mean and std refer to. A sample that
            the loader scaled by another factor is an error. One number, or one a band.
        offset: What is added after scaling, e.g. -0.1 for Sentinel-2 from processing baseline 04.00
            on; one number, or one a band. ``None``: not stated. A sample to which the loader added
            another number is an error.
        gsd: Ground sampling distance in metres, for the contract.
        licence: Licence of weights that are trained with it, for the contract.
        scale_on_device: The loader leaves stored numbers as they are, and they are multiplied by
            ``scale`` here, and ``offset`` (0 unless given) is added: integers are smaller on their
            way to the device.
        sensors: Instead of ``mean`` and ``std``: from the name of a sensor, which every sample
            carries, to ``dict(mean=..., std=...)``, for imagery of several sensors in one model.
        invalid: What invalid pixels become after normalisation: ``'mean'``: 0; ``'nan'``: NaN, and
            padding too, for models that see nothing but the tensor and have to know what is missing
            (:class:`mmrsfm.DualModalityBackbone`). Other models take no NaN.
        pad_size_divisor: Pad on the right and at the bottom to a multiple of this.
        pad_value: Value of the padding, after normalisation (``invalid='mean'`` only).
        to_rgb: Reverse the channels of three-channel inputs (from loaders that give BGR).
        to_onehot: See mmpretrain.
        num_classes: See mmpretrain.
        batch_augments: See mmpretrain.

    Attributes:
        contract: The :class:`mmrsfm.contract.ImageryContract`.

    Raises:
        ConfigError: For contradictory arguments.
        BandMismatchError: In forward, if a sample has other bands.
        ContractError: In forward, if a sample was scaled otherwise, or is of an unknown sensor.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        band_names: Sequence[str] | None = None,
        sensor: str | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        gsd: float | None = None,
        licence: str | None = None,
        scale_on_device: bool = False,
        sensors: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
        invalid: str = 'mean',
        pad_size_divisor: int = 1,
        pad_value: float = 0.0,
        to_rgb: bool = False,
        to_onehot: bool = False,
        num_classes: int | None = None,
        batch_augments: dict[str, Any] | None = None,
    ) -> None:
        padding = self._set_invalid(invalid, pad_value)
        ClsDataPreprocessor.__init__(
            self,
            pad_size_divisor=pad_size_divisor,
            pad_value=padding,
            to_onehot=to_onehot,
            num_classes=num_classes,
            batch_augments=batch_augments,
        )
        self._set_contract(
            mean, std, band_names, sensor, scale, offset, gsd, licence, scale_on_device, sensors
        )
        # Not the base class's to_rgb: it would reverse the channels after normalisation.
        self._reverse = to_rgb

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepares a batch.

        Args:
            data: ``dict(inputs, data_samples)`` from the data loader.
            training: Whether batch augmentations are applied.

        Returns:
            ``dict(inputs, data_samples)``; ``inputs`` (B, C, H, W) float32, or a list of views.
        """
        inputs, samples = data['inputs'], data.get('data_samples')
        if _is_views(inputs):
            views = [self._one_view(view, samples, record=False)[0] for view in inputs]
            return {'inputs': views, 'data_samples': samples}
        images, samples = self._one_view(inputs, samples, record=True)
        return super().forward({'inputs': images, 'data_samples': samples}, training)

    def _one_view(
        self, inputs: Tensor | Sequence[Tensor], samples: Sequence[Any] | None, record: bool
    ) -> tuple[Tensor, Sequence[Any] | None]:
        for image, sample in zip(inputs, samples or [None] * len(inputs), strict=True):
            self.check_sample(image.shape[0], sample)
        masks = valid_masks(samples, self.device) if record else []
        known: Any = masks if any(mask is not None for mask in masks) else None
        found: Any
        if isinstance(inputs, Tensor):
            batch, found = self.normalize(self._to_device(inputs), known, samples)
        else:
            pairs = [
                self.normalize(
                    self._to_device(image),
                    None if known is None else known[number],
                    None if samples is None else samples[number],
                )
                for number, image in enumerate(inputs)
            ]
            size = [max(image.shape[axis] for image, _ in pairs) for axis in (1, 2)]
            batch = torch.stack([_pad(image, size, self.pad_value) for image, _ in pairs])
            found = [mask for _, mask in pairs]
            if all(mask is None for mask in found) and all(
                list(image.shape[1:]) == size for image, _ in pairs
            ):
                found = None
        divisor = self.pad_size_divisor
        height, width = (-(-edge // divisor) * divisor for edge in batch.shape[2:])
        padded = _pad(batch, (height, width), self.pad_value)
        if record and samples is not None:
            shapes = [image.shape for image in inputs]
            self._record(samples, found, shapes, tuple(padded.shape[1:]))
        return padded, samples

    def _to_device(self, image: Tensor) -> Tensor:
        image = self.cast_data(image)
        return image.flip(-3) if self._reverse and image.shape[-3] == 3 else image

    def _record(
        self, samples: Sequence[Any], masks: Any, shapes: Sequence[Any], shape: tuple[int, ...]
    ) -> None:
        """Writes masks that fit the batch, and moves what was drawn with the samples."""
        for number, sample in enumerate(samples):
            mask = None if masks is None else masks[number]
            if mask is None and tuple(shapes[number]) != shape:
                mask = torch.ones(tuple(shapes[number]), dtype=torch.bool, device=self.device)
            if mask is not None:
                sample.set_field(_pad(mask, shape[1:], False), 'valid_mask')
        for key in ('mask_noise', 'scale_crop', 'modality_noise'):
            present = [sample for sample in samples if getattr(sample, key, None) is not None]
            if not present:
                continue
            if len({getattr(sample, key).shape for sample in present}) > 1:
                raise ConfigError(f'the samples of a batch have {key} of different shapes')
            # One copy to the device instead of one a sample.
            together = self.cast_data(torch.stack([getattr(sample, key) for sample in present]))
            for sample, value in zip(present, together, strict=True):
                sample.set_field(value, key)


def _pad(x: Tensor, size: Sequence[int], value: float | bool) -> Tensor:
    """Pads (..., H, W) on the right and at the bottom to ``size``."""
    bottom, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return F.pad(x, (0, right, 0, bottom), value=value) if bottom or right else x


def _is_views(inputs: Any) -> bool:
    """A list of views: each is a batch (four axes), or a list of images."""
    if isinstance(inputs, Tensor) or not inputs:
        return False
    return not isinstance(inputs[0], Tensor) or inputs[0].ndim == 4
