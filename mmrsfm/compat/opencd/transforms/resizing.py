# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Resizes pairs."""

from __future__ import annotations

from typing import Any

import mmcv
from mmcv.transforms import RandomResize
from mmseg.datasets.transforms import Resize

from mmrsfm.compat.opencd.registry import SCOPE, TRANSFORMS


@TRANSFORMS.register_module()
class MultiImgResize(Resize):
    """mmseg's Resize for a pair; maps that are loaded already are resized too (nearest).

    Sets ``img``, ``img_shape``, ``scale``, ``keep_ratio`` and ``scale_factor``, (width, height);
    with ``keep_ratio`` that is (1, 1) whatever was done, as in Open-CD.

    Args:
        scale: (width, height), or one number for both; with ``keep_ratio`` the longest and the
            shortest side that fit.
        scale_factor: Factor(s) instead.
        keep_ratio: Whether to keep the aspect.
        **kwargs: ``clip_object_border``, ``backend``, ``interpolation`` as of mmcv's Resize.
    """

    def _resize_img(self, results: dict[str, Any]) -> None:
        if results.get('img') is None:
            return
        images, factor = [], (1.0, 1.0)
        for image in results['img']:
            if self.keep_ratio:
                resized = mmcv.imrescale(
                    image,
                    results['scale'],
                    interpolation=self.interpolation,
                    backend=self.backend,
                )
            else:
                resized, *factors = mmcv.imresize(
                    image,
                    results['scale'],
                    interpolation=self.interpolation,
                    return_scale=True,
                    backend=self.backend,
                )
                factor = (factors[0], factors[1])
            images.append(resized)
        results['img'] = images
        results['img_shape'] = images[0].shape[:2]
        results['scale_factor'] = factor
        results['keep_ratio'] = self.keep_ratio

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resizes images and maps."""
        if self.scale:
            results['scale'] = self.scale
        else:
            height, width = results['img'][0].shape[:2]
            across, down = self.scale_factor
            # Rounded as mmcv does.
            results['scale'] = int(width * across + 0.5), int(height * down + 0.5)
        self._resize_img(results)
        self._resize_seg(results)
        return results


@TRANSFORMS.register_module()
class MultiImgRandomResize(RandomResize):
    """mmcv's RandomResize for a pair.

    Args:
        scale: Base (width, height), or two of them to draw between.
        ratio_range: Factors to draw from, for a single base.
        resize_type: The transform that resizes.
        **kwargs: Its arguments, e.g. ``keep_ratio=True``.
    """

    def __init__(
        self,
        scale: Any,
        ratio_range: tuple[float, float] | None = None,
        resize_type: str = 'MultiImgResize',
        **kwargs: Any,
    ) -> None:
        if resize_type == 'MultiImgResize':
            resize_type = f'{SCOPE}.{resize_type}'  # found under any default scope
        super().__init__(scale, ratio_range, resize_type, **kwargs)
