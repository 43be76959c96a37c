# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Changes values of the images, and leaves pixels where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import Normalize
from mmseg.datasets.transforms import Albu, PhotoMetricDistortion

from mmrsfm.compat.opencd.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiImgPhotoMetricDistortion(PhotoMetricDistortion):
    """mmseg's PhotoMetricDistortion; each date is distorted on its own.

    Args:
        brightness_delta: Largest change of the brightness.
        contrast_range: Factors of the contrast.
        saturation_range: Factors of the saturation.
        hue_delta: Largest change of the hue.
        consistent_contrast_mode: Whether the contrast is changed at the same place of the order
            (before or after the colours) in both dates.
    """

    def __init__(
        self,
        brightness_delta: int = 32,
        contrast_range: Any = (0.5, 1.5),
        saturation_range: Any = (0.5, 1.5),
        hue_delta: int = 18,
        consistent_contrast_mode: bool = False,
    ) -> None:
        super().__init__(brightness_delta, contrast_range, saturation_range, hue_delta)
        self.consistent_contrast_mode = consistent_contrast_mode

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Distorts both dates."""
        first = np.random.randint(2) if self.consistent_contrast_mode else None
        results['img'] = [self._distort(image, first) for image in results['img']]
        return results

    def _distort(self, image: np.ndarray, contrast_first: int | None) -> np.ndarray:
        image = self.brightness(image)
        if contrast_first is None:
            contrast_first = np.random.randint(2)
        if contrast_first:
            image = self.contrast(image)
        image = self.hue(self.saturation(image))
        return image if contrast_first else self.contrast(image)


@TRANSFORMS.register_module()
class MultiImgNormalize(Normalize):
    """mmcv's Normalize for a pair. The data preprocessor does the same, on the device.

    Args:
        mean: One value a channel of one date.
        std: Likewise.
        to_rgb: Whether to swap channels before.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Normalises both dates."""
        images = []
        for image in results['img']:
            one = super().transform({'img': image})
            images.append(one.pop('img'))
            results.update(one)
        results['img'] = images
        return results


@TRANSFORMS.register_module()
class MultiImgAlbu(Albu):
    """mmseg's Albu for a pair: one draw for both dates and the maps. Needs albumentations.

    Args:
        transforms: Transforms of albumentations, as of mmseg's Albu.
        keymap: As there; by default image and map.
        additional_targets: Further targets; the second date is one already.
        update_pad_shape: As there.
        bgr_to_rgb: As there.
    """

    def __init__(
        self,
        transforms: list[dict[str, Any]],
        keymap: dict[str, str] | None = None,
        additional_targets: dict[str, str] | None = None,
        update_pad_shape: bool = False,
        bgr_to_rgb: bool = True,
    ) -> None:
        targets = {'image_to': 'image', **(additional_targets or {})}
        super().__init__(transforms, keymap, targets, update_pad_shape, bgr_to_rgb)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Augments both dates and the map."""
        first, second = results['img']
        flip = (lambda image: np.ascontiguousarray(image[..., ::-1])) if self.bgr_to_rgb else None
        given = {'image': first, 'image_to': second}
        if flip is not None:
            given = {key: flip(image) for key, image in given.items()}
        fields = [key for key in results.get('seg_fields', []) if key in results]
        out = self.aug(**given, masks=[results[key] for key in fields])
        images = [out['image'], out['image_to']]
        results['img'] = images if flip is None else [flip(image) for image in images]
        results.update(zip(fields, out['masks'], strict=True))
        results['img_shape'] = results['img'][0].shape[:2]
        if self.update_pad_shape:
            results['pad_shape'] = results['img_shape']
        return results
