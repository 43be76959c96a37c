# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The part of a model that becomes a graph: from normalised images to what a task hands out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmrsfm.apis.exporting.metadata import TASKS
from mmrsfm.errors import ConfigError, ExportError

_WHY_NOT = {
    'detection': 'its boxes go through suppression and regions of interest, operators of mmcv that '
    'ONNX does not have',
    'rotated_detection': 'its rotated boxes go through suppression and regions of interest, '
    'operators of mmcv that ONNX does not have',
    'instance_segmentation': 'its boxes and masks go through suppression and regions of interest, '
    'operators of mmcv that ONNX does not have',
    'translation': 'its input is two images of which one may be missing, and it decides by the '
    'values which',
}


class Network(nn.Module):
    """A model without its data preprocessor, as a function of tensors.

    Args:
        model: Of mmseg, mmpretrain, Open-CD or mmrsfm, in evaluation mode.
        task: One of :data:`TASKS`.
        multi_label: Classification: whether scores are sigmoids, not softmax.

    Raises:
        ExportError: If the task is none of these.
    """

    def __init__(self, model: nn.Module, task: str, multi_label: bool = False) -> None:
        super().__init__()
        check_task(task)
        self.model: Any = model
        self.task = task
        self.multi_label = multi_label

    def forward(self, images: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """Predicts.

        Args:
            images: (B, C, H, W), normalised; for classifiers of pairs two of them.

        Returns:
            Logits or heights (B, K, H, W); scores (B, K), which add up to 1 unless several classes
            may hold; or each of the maps of the backbone.

        Raises:
            ConfigError: If the backbone gives no tensors.
        """
        if self.task == 'features':
            maps = self.model.backbone(images)
            maps = tuple(maps) if isinstance(maps, (tuple, list)) else (maps,)
            if not all(isinstance(one, Tensor) for one in maps):
                raise ConfigError(f'{type(self.model.backbone).__name__} gives no tensors')
            return maps
        if self.task == 'classification':
            scores = self.model(images, mode='tensor')
            scores = scores[-1] if isinstance(scores, (tuple, list)) else scores
            return (scores.sigmoid() if self.multi_label else scores.softmax(1),)
        assert isinstance(images, Tensor)
        size = (images.shape[2], images.shape[3])
        meta = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)
        return (self.model.encode_decode(images, [meta]),)


def check_task(task: str) -> None:
    """Raises an ExportError, with the reason, for a task whose models have no graph."""
    if task not in TASKS:
        reason = _WHY_NOT.get(task, 'there is no such task')
        raise ExportError(
            f'a model for {task} cannot be exported: {reason}. Its backbone can: --part backbone'
        )


def check_windows(model: Any, size: int) -> None:
    """Raises an ExportError if a model predicts in windows of another size than ``size``."""
    test_cfg = getattr(model, 'test_cfg', None) or {}
    mode = test_cfg.get('mode', 'whole')
    if mode == 'whole':
        return
    crop = tuple(test_cfg.get('crop_size') or ())
    if mode != 'slide' or crop != (size, size):
        raise ExportError(
            f'test_cfg of the config predicts in windows ({mode}, {crop}); a graph is one window. '
            f'Export it with the side of the windows (--size {crop[0] if crop else "..."}), or as '
            'a whole (--cfg-options model.test_cfg.mode=whole): scenes are cut into tiles anyway'
        )
