# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Samples with random labels of several kinds, to time a model without data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmrotate.structures.bbox import RotatedBoxes

from mmrsfm.models.multi_task.label_sets import LabelSet

_OBJECTS = 8
_EXTENT = (0.05, 0.3)  # of the side of the image


def random_samples(
    label_sets: Sequence[LabelSet],
    count: int,
    size: Sequence[int],
    generator: torch.Generator,
    objects: int = _OBJECTS,
) -> list[Any]:
    """Makes samples of the data sets in turn, each with rectangles and all kinds of label.

    Args:
        label_sets: The data sets.
        count: Number of samples.
        size: Height and width of the images in pixels.
        generator: What draws.
        objects: Objects in an image.

    Returns:
        Data samples as :class:`mmrsfm.MTP` takes them.
    """
    return [
        _sample(label_sets[number % len(label_sets)], size, objects, generator)
        for number in range(count)
    ]


def _sample(label_set: LabelSet, size: Sequence[int], objects: int, generator: Any) -> Any:
    height, width = int(size[0]), int(size[1])
    sides = torch.tensor([width, height], dtype=torch.float32)
    low, high = _EXTENT
    extent = (low + (high - low) * torch.rand(objects, 2, generator=generator)) * sides
    corner = torch.rand(objects, 2, generator=generator) * (sides - extent)
    boxes = torch.cat([corner, corner + extent], dim=1).round()
    labels = torch.randint(len(label_set.classes), (objects,), generator=generator)
    masks = np.zeros((objects, height, width), dtype=np.uint8)
    kinds = torch.zeros(1, height, width, dtype=torch.int64)
    pixel_classes = len(label_set.semantic_classes)
    for number, (x, y, right, bottom) in enumerate(boxes.long().tolist()):
        masks[number, y:bottom, x:right] = 1
        kinds[0, y:bottom, x:right] = (int(labels[number]) + 1) % pixel_classes
    angle = torch.rand(objects, 1, generator=generator) - 0.5
    rotated = torch.cat([corner + extent / 2, extent, angle], dim=1)
    shape = (height, width)
    sample = DetDataSample(
        metainfo=dict(
            dataset_name=label_set.name,
            tasks=label_set.tasks,
            img_shape=shape,
            ori_shape=shape,
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=labels, masks=BitmapMasks(masks, height, width)
    )
    sample.r_gt_instances = InstanceData(bboxes=RotatedBoxes(rotated), labels=labels.clone())
    sample.gt_sem_seg = PixelData(data=kinds)
    return sample
