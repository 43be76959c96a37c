# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One sample of several tasks, as the metrics of mmseg, mmdet and mmrotate each want to see it.

Each function takes a sample as MMEngine's evaluator passes it on (a dict, whose instances and maps
are dicts too), and returns ``None`` where it lacks the label or the prediction of the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from mmrsfm.errors import ConfigError


def semantic_sample(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """For :class:`mmseg.evaluation.IoUMetric`.

    Raises:
        ConfigError: If label and prediction have different sizes.
    """
    label, predicted = sample.get('gt_sem_seg'), sample.get('pred_sem_seg')
    if label is None or predicted is None:
        return None
    sizes = tuple(label['data'].shape[-2:]), tuple(predicted['data'].shape[-2:])
    if sizes[0] != sizes[1]:
        raise _misfit(sample, f'semantic map {sizes[0]}', f'prediction {sizes[1]}')
    return {**sample, 'gt_sem_seg': label, 'pred_sem_seg': predicted}


def instance_sample(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """For :class:`mmdet.evaluation.CocoMetric` without an ``ann_file``.

    Instances that are to be ignored become crowds, which COCO's protocol counts neither way.

    Raises:
        ConfigError: If instance masks have another size than the image.
    """
    truth, predicted = sample.get('gt_instances'), sample.get('pred_instances')
    if truth is None or predicted is None:
        return None
    shape = tuple(sample['ori_shape'][:2])
    instances = _annotations(truth, 0, shape, sample)
    instances += _annotations(sample.get('ignored_instances') or {}, 1, shape, sample)
    return {
        'pred_instances': {**predicted, 'bboxes': plain_boxes(predicted['bboxes'])},
        'instances': instances,
        'ori_shape': shape,
        'img_id': 0,  # numbered when all are together
    }


def rotated_sample(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """For :class:`mmrotate.evaluation.DOTAMetric`."""
    truth, predicted = sample.get('r_gt_instances'), sample.get('pred_r_instances')
    if truth is None or predicted is None:
        return None
    return {
        'gt_instances': _boxes_and_labels(truth),
        'ignored_instances': _boxes_and_labels(sample.get('ignored_r_instances') or {}),
        'pred_instances': {**_boxes_and_labels(predicted), 'scores': predicted['scores']},
        'img_id': 0,
    }


def plain_boxes(boxes: Any) -> Tensor:
    """The tensor of boxes of any of the libraries' types."""
    tensor: Tensor = getattr(boxes, 'tensor', boxes)
    return tensor


def _boxes_and_labels(instances: Mapping[str, Any]) -> dict[str, Tensor]:
    if 'bboxes' not in instances:
        return {'bboxes': torch.zeros(0, 5), 'labels': torch.zeros(0, dtype=torch.int64)}
    return {'bboxes': plain_boxes(instances['bboxes']), 'labels': instances['labels']}


def _annotations(
    instances: Mapping[str, Any], ignore: int, shape: tuple[int, ...], sample: Mapping[str, Any]
) -> list[dict[str, Any]]:
    if 'bboxes' not in instances:
        return []
    boxes = plain_boxes(instances['bboxes']).tolist()
    labels = instances['labels'].tolist()
    masks = _encoded(instances.get('masks'), shape, sample)
    result: list[dict[str, Any]] = []
    for number, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        one = {'bbox': box, 'bbox_label': label, 'ignore_flag': ignore}
        if masks is not None:
            one['mask'] = masks[number]
        result.append(one)
    return result


def _encoded(
    masks: Any, shape: tuple[int, ...], sample: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    """Run lengths of masks: BitmapMasks, PolygonMasks or a tensor (N, H, W)."""
    if masks is None:
        return None
    array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else masks.to_ndarray()
    if len(array) and array.shape[1:] != shape:
        raise _misfit(sample, f'instance masks {array.shape[1:]}', f'image {shape}')
    return [coco_mask.encode(np.asfortranarray(one, dtype=np.uint8)) for one in array]


def _misfit(sample: Mapping[str, Any], label: str, other: str) -> ConfigError:
    return ConfigError(
        f'{sample.get("img_path", "a sample")}: {label}, but {other}: for validation and test the '
        'labels are loaded after the image is resized, so that they keep the size of the file'
    )
