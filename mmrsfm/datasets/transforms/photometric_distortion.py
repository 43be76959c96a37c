# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Random brightness, contrast, saturation and hue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.errors import BandMismatchError, ConfigError, DataError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PhotometricDistortion(BaseTransform):
    """Each with probability 1/2: brightness, contrast, saturation, hue; contrast first or last.

    The order and the ranges are those of mmseg's PhotoMetricDistortion, whose arithmetic is for
    uint8 only. (MTP gave it float images: their saturation became 0 whenever neither brightness nor
    contrast had turned them to uint8 before.) Here the arithmetic is in float32, and an image of
    integers is rounded back to its type.

    Saturation and hue need three bands, red, green and blue in this order or the reverse: to mirror
    the order mirrors the circle of hues, and the drawn shift is symmetrical.

    Origin of the distortion: Howard, "Some Improvements on Deep Convolutional Neural Network Based
    Image Classification", arXiv 1312.5402; Liu et al., "SSD", arXiv 1512.02325.

    Required key: ``img`` (H, W, C), values from 0 to ``max_value``. Modified key: ``img``.

    Args:
        brightness: Largest shift, in units of the image.
        contrast: Range of the factor of all values.
        saturation: Range of the factor of the saturation; ``None``: neither saturation nor hue.
        hue: Largest shift of the hue in degrees (36 are the 18 of OpenCV's 8-bit hues).
        max_value: The brightest value of the image.

    Raises:
        BandMismatchError: An image of other than three bands has saturation to change.
        DataError: Values far above ``max_value``, which it would cut off.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] | None = (0.5, 1.5),
        hue: float = 36.0,
        max_value: float = 255.0,
    ) -> None:
        for name, span in (('contrast', contrast), ('saturation', saturation)):
            if span is not None and (len(span) != 2 or not 0 <= span[0] <= span[1]):
                raise ConfigError(f'PhotometricDistortion: {name} is (low, high), got {span}')
        if max_value <= 0 or brightness < 0 or hue < 0:
            raise ConfigError('PhotometricDistortion: brightness, hue and max_value are positive')
        self.brightness = brightness
        self.contrast = (float(contrast[0]), float(contrast[1]))
        self.saturation = (
            None if saturation is None else (float(saturation[0]), float(saturation[1]))
        )
        self.hue = hue
        self.max_value = max_value

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Distorts; see the class."""
        stored = results['img']
        if self.saturation is not None and stored.shape[2] != 3:
            raise BandMismatchError(
                f'saturation and hue need three bands, got {stored.shape[2]}',
                path=results.get('img_path'),
                hint='PhotometricDistortion(saturation=None) changes brightness and contrast only',
            )
        image = stored.astype(np.float32)
        # Twice as much: kernels of resizing overshoot a little.
        if image.max(initial=0) > 2 * self.max_value:
            raise DataError(
                f'values up to {image.max():g} would be cut off at max_value={self.max_value:g}',
                path=results.get('img_path'),
                hint='PhotometricDistortion takes max_value and brightness in units of the image',
            )
        if np.random.randint(2):
            shift = np.random.uniform(-self.brightness, self.brightness)
            image = np.clip(image + np.float32(shift), 0, self.max_value)
        contrast_first = bool(np.random.randint(2))
        if contrast_first:
            image = self._change_contrast(image)
        if self.saturation is not None:
            image = self._change_colour(image, self.saturation)
        if not contrast_first:
            image = self._change_contrast(image)
        if np.issubdtype(stored.dtype, np.integer):
            image = np.rint(image)
        results['img'] = image.astype(stored.dtype)
        return results

    def _change_contrast(self, image: np.ndarray) -> np.ndarray:
        if not np.random.randint(2):
            return image
        factor = np.float32(np.random.uniform(*self.contrast))
        changed: np.ndarray = np.clip(image * factor, 0, self.max_value)
        return changed

    def _change_colour(self, image: np.ndarray, saturation: tuple[float, float]) -> np.ndarray:
        factor = np.random.uniform(*saturation) if np.random.randint(2) else None
        shift = np.random.uniform(-self.hue, self.hue) if np.random.randint(2) else None
        if factor is None and shift is None:
            return image
        # Of float images: hue in degrees, saturation and value in 0 .. 1.
        hsv = cv2.cvtColor(image / np.float32(self.max_value), cv2.COLOR_RGB2HSV)
        if factor is not None:
            hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(factor), 0, 1)
        if shift is not None:
            hsv[..., 0] = (hsv[..., 0] + np.float32(shift)) % 360
        changed: np.ndarray = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(self.max_value)
        return changed

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
