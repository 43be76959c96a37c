# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One pipeline for several kinds of label: each step moves all of them."""

from mmrsfm.datasets.multi_task.transforms.filter_objects import MultiTaskFilter
from mmrsfm.datasets.multi_task.transforms.load_annotations import LoadMultiTaskAnnotations
from mmrsfm.datasets.multi_task.transforms.pack_inputs import PackMultiTaskInputs
from mmrsfm.datasets.multi_task.transforms.pad import MultiTaskPad
from mmrsfm.datasets.multi_task.transforms.random_crop import MultiTaskRandomCrop
from mmrsfm.datasets.multi_task.transforms.random_flip import MultiTaskRandomFlip
from mmrsfm.datasets.multi_task.transforms.random_rotate import MultiTaskRandomRotate
from mmrsfm.datasets.multi_task.transforms.resize import MultiTaskRandomResize, MultiTaskResize

__all__ = [
    'LoadMultiTaskAnnotations',
    'MultiTaskFilter',
    'MultiTaskPad',
    'MultiTaskRandomCrop',
    'MultiTaskRandomFlip',
    'MultiTaskRandomResize',
    'MultiTaskRandomRotate',
    'MultiTaskResize',
    'PackMultiTaskInputs',
]
