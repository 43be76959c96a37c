# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packs a sample with several kinds of label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from mmrsfm.datasets.multi_task.alignment import masks_of
from mmrsfm.datasets.transforms.pack_inputs import pack_image, pack_valid_mask
from mmrsfm.registry import TRANSFORMS

META_KEYS = (
    'dataset_name', 'tasks', 'sample_idx', 'img_id', 'img_path', 'ori_shape', 'img_shape',
    'pad_shape', 'scale_factor', 'flip', 'flip_direction', 'band_names', 'geo', 'sensor',
)  # fmt: skip


@TRANSFORMS.register_module()
class PackMultiTaskInputs(BaseTransform):
    """Packs what the steps before have left, of as many kinds of label as there are.

    Returns ``dict(inputs, data_samples)``: ``inputs`` (C, H, W) in the type of the image, and an
    mmdet ``DetDataSample`` with

    * ``gt_sem_seg``: ``data`` int64 (1, H, W), 255 where there is no label, or no band has data;
    * ``gt_instances``: ``bboxes`` (``HorizontalBoxes``), ``labels`` int64, ``masks``
      (``BitmapMasks``), and ``ignored_instances`` alike;
    * ``r_gt_instances``: ``bboxes`` (``RotatedBoxes``), ``labels``, and ``ignored_r_instances``;
    * ``valid_mask`` bool (C, H, W), if something of the image is no data;
    * meta information: name of the data set, its tasks, sizes, paths, ``scale`` and ``offset`` that
      the loader has applied (the data preprocessor compares them with its contract), and
      ``sampling_seed``, a number that follows from the address of the sample: a model that samples
      proposals by it does not depend on the batch.

    Args:
        meta_keys: Further keys for the meta information, besides the usual ones.
    """

    def __init__(self, meta_keys: Sequence[str] = ()) -> None:
        self.meta_keys = tuple(dict.fromkeys((*META_KEYS, *meta_keys)))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs; see the class."""
        sample = DetDataSample()
        if 'gt_bboxes' in results:
            fields = {'bboxes': results['gt_bboxes'], 'labels': results['gt_bboxes_labels']}
            masks = masks_of(results)
            if masks is not None:
                fields['masks'] = masks
            kept, ignored = _instances(fields, results['gt_ignore_flags'])
            sample.gt_instances, sample.ignored_instances = kept, ignored
        if 'gt_rboxes' in results:
            fields = {'bboxes': results['gt_rboxes'], 'labels': results['gt_rboxes_labels']}
            kept, ignored = _instances(fields, results['gt_r_ignore_flags'])
            sample.r_gt_instances, sample.ignored_r_instances = kept, ignored
        valid = pack_valid_mask(results)
        if valid is not None:
            sample.set_field(valid, 'valid_mask')
        if 'gt_seg_map' in results:
            label = torch.from_numpy(results['gt_seg_map'].astype(np.int64)[None])
            if valid is not None:
                label[~valid.any(dim=0, keepdim=True)] = 255
            sample.gt_sem_seg = PixelData(data=label)
        meta = {key: results[key] for key in self.meta_keys if key in results}
        for key in ('scale', 'offset'):  # `scale` of the results is a size, of mmcv's resizing
            if f'value_{key}' in results:
                meta[key] = results[f'value_{key}']
        # From the generator that the address of the sample has seeded (mmrsfm.randomness).
        meta['sampling_seed'] = int(np.random.randint(0, 2**31 - 1))
        sample.set_metainfo(meta)
        return {'inputs': pack_image(results['img']), 'data_samples': sample}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'


def _instances(fields: dict[str, Any], ignored: np.ndarray) -> tuple[InstanceData, InstanceData]:
    parts = []
    for chosen in (~ignored, ignored):
        data = InstanceData()
        for name, values in fields.items():
            if name == 'masks':
                data.masks = values[chosen].to_bitmap()
            elif name == 'labels':
                data.labels = torch.from_numpy(values[chosen])
            else:
                data[name] = values[torch.from_numpy(chosen)]
        parts.append(data)
    return parts[0], parts[1]
