# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data preprocessor for semantic segmentation with any number of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models import SegDataPreProcessor

from mmrsfm.errors import ImageSizeError
from mmrsfm.models.data_preprocessors.band_normalization import BandNormalization
from mmrsfm.registry import MODELS


@MODELS.register_module()
class MultiBandSegDataPreprocessor(BandNormalization, SegDataPreProcessor):
    """mmseg's SegDataPreProcessor for any number of bands, with a contract and no-data.

    Casts, scales and normalises on the device: ``(stored * scale + offset - mean) / std``.
    Invalid pixels (the samples' ``valid_mask``, and NaN or infinities without one) become 0, the
    mean, or NaN (``invalid``); where pixels are invalid, the sample's ``valid_mask`` (C, H, W) says
    so, with padding invalid.

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
            ``scale`` here, and ``offset`` (0 unless given) is added.
        sensors: Instead of ``mean`` and ``std``: from the name of a sensor, which every sample
            carries, to ``dict(mean=..., std=...)``, for imagery of several sensors in one model.
        invalid: What invalid pixels become after normalisation: ``'mean'``: 0; ``'nan'``: NaN, and
            padding too, for models that see nothing but the tensor and have to know what is missing
            (:class:`mmrsfm.DualModalityBackbone`). Other models take no NaN.
        size: Fixed size (H, W) of the padded batch in training.
        size_divisor: Instead of ``size``: pad to a multiple of this. Neither: to the largest image.
        pad_val: Value of the padding, after normalisation (``invalid='mean'`` only).
        seg_pad_val: Label of the padding.
        bgr_to_rgb: Reverse the channels of three-channel inputs (from loaders that give BGR).
        test_cfg: ``dict(size=...)`` or ``dict(size_divisor=...)`` for testing; ``None``: no
            padding.

    Attributes:
        contract: The :class:`mmrsfm.contract.ImageryContract`.

    Raises:
        ConfigError: For contradictory arguments.
        BandMismatchError: In forward, if a sample has other bands.
        ContractError: In forward, if a sample was scaled otherwise, or is of an unknown sensor.
        ImageSizeError: In testing, if the images of a batch differ in size.
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
        size: Sequence[int] | None = None,
        size_divisor: int | None = None,
        pad_val: float = 0.0,
        seg_pad_val: int = 255,
        bgr_to_rgb: bool = False,
        test_cfg: dict[str, Any] | None = None,
    ) -> None:
        if size is None and size_divisor is None:
            size_divisor = 1  # mmseg wants exactly one of them
        padding = self._set_invalid(invalid, pad_val)
        # Without mean and std: mmengine's base class takes one or three of them.
        SegDataPreProcessor.__init__(
            self,
            size=None if size is None else tuple(size),
            size_divisor=size_divisor,
            pad_val=padding,
            seg_pad_val=seg_pad_val,
            test_cfg=test_cfg,
        )
        self._set_contract(
            mean, std, band_names, sensor, scale, offset, gsd, licence, scale_on_device, sensors
        )
        self._reverse = bgr_to_rgb

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepares a batch.

        Args:
            data: ``dict(inputs, data_samples)``; ``inputs`` a list of (C, H, W) or one (B, C, H,
                W).
            training: Whether to pad as in training.

        Returns:
            ``dict(inputs, data_samples)``; ``inputs`` (B, C, H, W) float32.
        """
        data = self.cast_data(data)
        samples = data.get('data_samples')
        images, masks = [], []
        for number, image in enumerate(data['inputs']):
            sample = None if samples is None else samples[number]
            self.check_sample(image.shape[0], sample)
            if self._reverse and image.shape[0] == 3:
                image = image.flip(0)
            image, mask = self.normalize(image, getattr(sample, 'valid_mask', None), sample)
            images.append(image)
            masks.append(mask)
        if not training and len({image.shape for image in images}) > 1:
            shapes = sorted({tuple(image.shape[1:]) for image in images})
            raise ImageSizeError(
                f'the images of a test batch differ in size: {shapes}', hint='Use batch_size=1'
            )
        batch = super().forward({'inputs': images, 'data_samples': samples}, training)
        self._record(batch, images, masks)
        return batch

    @staticmethod
    def _record(
        batch: dict[str, Any], images: Sequence[torch.Tensor], masks: Sequence[Any]
    ) -> None:
        """Writes masks that fit the padded batch into the data samples."""
        height, width = batch['inputs'].shape[2:]
        for sample, image, mask in zip(batch['data_samples'] or (), images, masks, strict=False):
            bottom, right = height - image.shape[1], width - image.shape[2]
            if mask is None and (bottom or right):
                mask = torch.ones_like(image, dtype=torch.bool)
            if mask is not None:
                sample.valid_mask = F.pad(mask, (0, right, 0, bottom), value=False)
