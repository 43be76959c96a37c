# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packs a sample for semantic segmentation."""

from __future__ import annotations

from typing import Any

import mmseg.datasets.transforms as mmseg_transforms
import numpy as np

from mmrsfm.datasets.transforms.pack_inputs import CARRIED_KEYS, pack_image, pack_valid_mask
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS

_USUAL_META_KEYS = (
    'img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip',
    'flip_direction', 'reduce_zero_label',
)  # fmt: skip


@TRANSFORMS.register_module()
class PackSegInputs(mmseg_transforms.PackSegInputs):
    """mmseg's PackSegInputs, with what many-band imagery carries.

    Required keys: ``img`` (H, W, C). Optional: ``gt_seg_map`` (H, W), ``gt_depth_map`` (H, W) of
    numbers such as heights, ``valid_mask``, the meta keys.

    Returns ``dict(inputs, data_samples)``: ``inputs`` (C, H, W) in the type of the image;
    ``data_samples`` an mmseg SegDataSample with ``gt_sem_seg``, ``gt_depth_map`` and, where
    something is invalid, ``valid_mask`` (C, H, W) bool; ``band_names``, ``scale`` and ``geo`` are
    among the meta information.

    Args:
        meta_keys: Further keys for the meta information, besides the usual ones.
        ignore_invalid: Pixels without data get the label ``ignore_index`` and the height NaN, so
            that neither loss nor metric counts them: ``'all'``: where every band is invalid;
            ``'any'``: where one is; ``'never'``.
        ignore_index: See ``ignore_invalid``.
    """

    def __init__(
        self,
        meta_keys: tuple[str, ...] = (),
        ignore_invalid: str = 'all',
        ignore_index: int = 255,
    ) -> None:
        if ignore_invalid not in ('all', 'any', 'never'):
            raise ConfigError("PackSegInputs: ignore_invalid must be 'all', 'any' or 'never'")
        keys = dict.fromkeys((*_USUAL_META_KEYS, *CARRIED_KEYS, *meta_keys))
        super().__init__(meta_keys=tuple(keys))
        self.ignore_invalid = ignore_invalid
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs; see the class."""
        valid = pack_valid_mask(results)
        if valid is not None and self.ignore_invalid != 'never':
            merge = np.any if self.ignore_invalid == 'all' else np.all
            keep = merge(results['valid_mask'], axis=2)
            for key, fill in (('gt_seg_map', self.ignore_index), ('gt_depth_map', np.nan)):
                if key in results:
                    results[key] = np.where(keep, results[key], fill)
        if 'gt_depth_map' in results:  # torch takes no flipped view
            results['gt_depth_map'] = np.ascontiguousarray(results['gt_depth_map'], np.float32)
        image = results.pop('img')
        packed = super().transform(results)
        results['img'] = image
        packed['inputs'] = pack_image(image)
        for key in ('scale', 'offset'):
            if f'value_{key}' in results:
                packed['data_samples'].set_metainfo({key: results[f'value_{key}']})
        if valid is not None:
            packed['data_samples'].valid_mask = valid
        return packed
