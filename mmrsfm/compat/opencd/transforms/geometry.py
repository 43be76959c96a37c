# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Moves both dates and the maps in the same way: flips, rotations, crops, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import Pad
from mmseg.datasets.transforms import RandomCrop, RandomFlip, RandomRotate, RandomRotFlip

from mmrsfm.compat.opencd.registry import TRANSFORMS
from mmrsfm.errors import ConfigError, ImageSizeError

Mapping = Callable[[np.ndarray], np.ndarray]


def _apply(results: dict[str, Any], to_image: Mapping, to_map: Mapping) -> None:
    results['img'] = [to_image(image) for image in results['img']]
    for key in results.get('seg_fields', []):
        results[key] = to_map(results[key])


@TRANSFORMS.register_module()
class MultiImgRandomFlip(RandomFlip):
    """mmseg's RandomFlip for a pair; sets ``flip`` and ``flip_direction``.

    Args:
        prob: How often, or how often in each direction.
        direction: ``'horizontal'``, ``'vertical'``, ``'diagonal'`` or several of them.
        swap_seg_labels: Pairs of classes that change places.
    """

    def _flip(self, results: dict[str, Any]) -> None:
        direction = results['flip_direction']

        def to_map(label: np.ndarray) -> np.ndarray:
            return self._flip_seg_map(label, direction=direction).copy()

        _apply(results, lambda image: mmcv.imflip(image, direction=direction), to_map)
        results['swap_seg_labels'] = self.swap_seg_labels


@TRANSFORMS.register_module()
class MultiImgRandomRotate(RandomRotate):
    """mmseg's RandomRotate for a pair.

    Args:
        prob: How often.
        degree: Range of the angle in degrees.
        **kwargs: ``pad_val``, ``seg_pad_val``, ``center``, ``auto_bound`` as there.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Rotates images (bilinear) and maps (nearest)."""
        rotate, degree = self.generate_degree()
        if not rotate:
            return results
        options = {'angle': degree, 'center': self.center, 'auto_bound': self.auto_bound}
        _apply(
            results,
            lambda image: mmcv.imrotate(image, border_value=self.pal_val, **options),
            lambda label: mmcv.imrotate(
                label, border_value=self.seg_pad_val, interpolation='nearest', **options
            ),
        )
        results['img_shape'] = results['img'][0].shape[:2]
        return results


@TRANSFORMS.register_module()
class MultiImgRandomRotFlip(RandomRotFlip):
    """Rotates by any angle, or else turns by quarters and flips.

    The draw for the second is made in either case. In distinction from mmseg's RandomRotFlip maps
    are rotated without mixing classes, and what comes in from outside is not labelled.

    Args:
        rotate_prob: How often to rotate.
        flip_prob: How often to turn and flip what was not rotated.
        degree: Range of the angle in degrees.
        pad_val: Value of the images outside.
        seg_pad_val: Value of the maps outside.
    """

    def __init__(
        self,
        rotate_prob: float = 0.5,
        flip_prob: float = 0.5,
        degree: Any = (-20, 20),
        pad_val: float = 0,
        seg_pad_val: int = 255,
    ) -> None:
        super().__init__(rotate_prob, flip_prob, degree)
        self.pad_val = pad_val
        self.seg_pad_val = seg_pad_val

    def random_rotate(self, results: dict[str, Any]) -> dict[str, Any]:
        """Rotates by an angle that is drawn."""
        angle = np.random.uniform(min(*self.degree), max(*self.degree))
        _apply(
            results,
            lambda image: mmcv.imrotate(image, angle=angle, border_value=self.pad_val),
            lambda label: mmcv.imrotate(
                label, angle=angle, border_value=self.seg_pad_val, interpolation='nearest'
            ),
        )
        return results

    def random_rot_flip(self, results: dict[str, Any]) -> dict[str, Any]:
        """Turns by 0 to 3 quarters, then flips one axis."""
        quarters = np.random.randint(0, 4)
        axis = np.random.randint(0, 2)

        def turn(array: np.ndarray) -> np.ndarray:
            return np.flip(np.rot90(array, quarters), axis=axis).copy()

        _apply(results, turn, turn)
        results['img_shape'] = results['img'][0].shape[:2]
        return results


@TRANSFORMS.register_module()
class MultiImgRandomCrop(RandomCrop):
    """mmseg's RandomCrop for a pair.

    Args:
        crop_size: (H, W).
        cat_max_ratio: Draw again, up to ten times, while one class has a larger share of the map.
        ignore_index: Not counted as a class.

    Raises:
        ConfigError: If a crop depends on a map that is not loaded.
        ImageSizeError: If the map has another size than the images, and they are cropped.
    """

    def __init__(self, crop_size: Any, cat_max_ratio: float = 1.0, ignore_index: int = 255) -> None:
        if isinstance(crop_size, list):
            crop_size = tuple(crop_size)
        super().__init__(crop_size, cat_max_ratio, ignore_index)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crops images and maps."""
        if self.cat_max_ratio < 1 and 'gt_seg_map' not in results:
            raise ConfigError(
                'MultiImgRandomCrop: cat_max_ratio looks at the map of change, which is not '
                'loaded; put MultiImgLoadAnnotations before it'
            )
        self._check_sizes(results)
        box = self.crop_bbox({**results, 'img': results['img'][0]})
        _apply(results, lambda image: self.crop(image, box), lambda label: self.crop(label, box))
        results['img_shape'] = results['img'][0].shape[:2]
        return results

    def _check_sizes(self, results: dict[str, Any]) -> None:
        height, width = results['img'][0].shape[:2]
        if height <= self.crop_size[0] and width <= self.crop_size[1]:
            return  # nothing is cut off
        for key in results.get('seg_fields', []):
            if results[key].shape[:2] != (height, width):
                raise ImageSizeError(
                    f'{key} is {results[key].shape[:2]}, the images are {(height, width)}: a crop '
                    'would be taken from different places',
                    path=results.get('seg_map_path'),
                    hint='Put MultiImgLoadAnnotations before MultiImgResize',
                )


@TRANSFORMS.register_module()
class MultiImgPad(Pad):
    """mmcv's Pad for a pair.

    Args:
        **kwargs: ``size`` (width, height) or ``size_divisor``, ``pad_val``, ``padding_mode`` as
            there.
    """

    def _pad_img(self, results: dict[str, Any]) -> None:
        images = []
        for image in results['img']:
            padded = {'img': image}
            super()._pad_img(padded)
            images.append(padded.pop('img'))
            results.update(padded)
        results['img'] = images
