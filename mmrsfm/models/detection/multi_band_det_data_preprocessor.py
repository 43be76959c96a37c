# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data preprocessor for detection with any number of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.data_preprocessors import DetDataPreprocessor

from mmrsfm.models.data_preprocessors.band_normalization import BandNormalization
from mmrsfm.registry import MODELS


@MODELS.register_module()
class MultiBandDetDataPreprocessor(BandNormalization, DetDataPreprocessor):
    """mmdet's DetDataPreprocessor for any number of bands, with a contract and no-data.

    For detectors of mmdet and mmrotate, boxes and masks. Casts, scales and normalises on the
    device: ``(stored * scale + offset - mean) / std``.

    The transforms of mmdet know no validity mask, but they carry NaN along: load with
    ``mmrsfm.LoadModalities(..., invalid='nan')``. What is NaN (or infinite) becomes 0, the mean, or
    stays NaN (``invalid``). mmdet's Resize interpolates a pixel beside NaN to NaN.

    Args:
        mean: Mean of each band, after ``scale`` and ``offset``. ``None``: no normalisation.
        std: Standard deviation of each band, after ``scale`` and ``offset``.
        band_names: Names of the channels, in their order. A sample with other names is an error.
            (mmdet's PackDetInputs packs them with ``meta_keys=(..., 'band_names')``.)
        sensor: Free text, for the contract.
        scale: Factor from stored numbers to the values that mean and std refer to.
        offset: What is added after scaling.
        gsd: Ground sampling distance in metres, for the contract.
        licence: Licence of weights that are trained with it, for the contract.
        scale_on_device: The loader leaves stored numbers as they are, and they are multiplied by
            ``scale`` here, and ``offset`` (0 unless given) is added.
        sensors: Instead of ``mean`` and ``std``: from the name of a sensor, which every sample
            carries, to ``dict(mean=..., std=...)``.
        invalid: What invalid pixels become after normalisation: ``'mean'``: 0; ``'nan'``: NaN, and
            padding too, for models that have to know what is missing
            (:class:`mmrsfm.DualModalityBackbone`). Other models take no NaN.
        pad_size_divisor: Pad on the right and at the bottom to a multiple of this.
        pad_value: Value of the padding, after normalisation (``invalid='mean'`` only).
        bgr_to_rgb: Reverse the channels of three-channel inputs (from loaders that give BGR).
        **kwargs: ``pad_mask``, ``mask_pad_value``, ``pad_seg``, ``seg_pad_value``,
            ``boxtype2tensor``, ``batch_augments`` as of mmdet's DetDataPreprocessor.

    Attributes:
        contract: The :class:`mmrsfm.contract.ImageryContract`.

    Raises:
        ConfigError: For contradictory arguments.
        BandMismatchError: In forward, if an image has other bands.
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
        bgr_to_rgb: bool = False,
        **kwargs: Any,
    ) -> None:
        # Without mean and std: mmengine's base class takes one or three of them.
        DetDataPreprocessor.__init__(
            self,
            pad_size_divisor=pad_size_divisor,
            pad_value=self._set_invalid(invalid, pad_value),
            **kwargs,
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
            training: Whether annotations are padded, and batch augmentations applied.

        Returns:
            ``dict(inputs, data_samples)``; ``inputs`` (B, C, H, W) float32.
        """
        data = self.cast_data(data)
        samples = data.get('data_samples')
        images = []
        for number, image in enumerate(data['inputs']):
            sample = None if samples is None else samples[number]
            self.check_sample(image.shape[0], sample)
            if self._reverse and image.shape[0] == 3:
                image = image.flip(0)
            image, _ = self.normalize(image, getattr(sample, 'valid_mask', None), sample)
            images.append(image)
        return super().forward({'inputs': images, 'data_samples': samples}, training)
