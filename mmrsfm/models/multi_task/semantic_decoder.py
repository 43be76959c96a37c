# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A decode head of mmseg that several data sets share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import ModuleDict
from mmengine.structures import PixelData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrsfm.models.multi_task.label_sets import SEMANTIC
from mmrsfm.models.multi_task.task_decoder import (
    Group,
    Maps,
    TaskDecoder,
    TaskLosses,
    check_labels,
    full_precision,
    label_of,
    metas_of,
    need,
    section,
)
from mmrsfm.registry import MODELS

# Entries of a decode head that belong to its last layer.
_LAST = ('loss_decode', 'ignore_index', 'align_corners', 'dropout_ratio', 'sampler')


@MODELS.register_module()
class SemanticDecoder(TaskDecoder):
    """Any decode head of mmseg without its classifier, and a classifier for each data set.

    The published one (MTP, arXiv 2403.13430) is a UPerHead of 256 channels; the classifiers are
    dropout and a 1x1 convolution. Where its normalisation sees the whole batch (BatchNorm that is
    being trained), one call for all data sets is another function than one call for each.

    Args:
        decode_head: Config of the head, without ``num_classes``. Its types without a scope are
            mmseg's.
        classes: Number of classes by the name of the data set.
        joint: Whether the images of all data sets go through the head in one call. ``None``: where
            it makes no difference. ``True``: always, and BatchNorm sees the mixture, as its
            running statistics do; ``False``: one call for each data set, as published.
        init_cfg: MMEngine's initialisation config.
    """

    scope = 'mmseg'

    def __init__(
        self,
        decode_head: Mapping[str, Any],
        classes: Mapping[str, int],
        joint: bool | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.joint = joint
        head = need(decode_head, 'decode_head')
        with MODELS.switch_scope_and_registry(self.scope) as registry:
            # Any number of classes: the classifier is thrown away.
            self.decode_head = registry.build({**head, 'num_classes': 3})
            channels = self.decode_head.conv_seg.in_channels
            self.decode_head.conv_seg = nn.Identity()
            self.decode_head.dropout = None
            last = {key: head[key] for key in _LAST if key in head}
            last.update(in_channels=channels, channels=channels, num_convs=0, concat_input=False)
            self.last_layers = ModuleDict(
                {
                    # Stated output channels: mmseg warns of heads of two classes without them.
                    name: registry.build(
                        dict(last, type='mmseg.FCNHead', num_classes=count, out_channels=count)
                    )
                    for name, count in classes.items()
                }
            )

    def loss(self, maps: Maps, samples: Sequence[Any], groups: Sequence[Group]) -> TaskLosses:
        """See :meth:`TaskDecoder.loss`. Samples have ``gt_sem_seg``, (1, H, W) int64."""
        result = TaskLosses()
        for group, features in self._features(maps, groups, result):
            last = self.last_layers[group.name]
            part = samples[group.part]
            labels = torch.stack([label_of(s, 'gt_sem_seg', SEMANTIC).data for s in part])
            check_labels(labels, last.num_classes, f'{group.name}: semantic', last.ignore_index)
            scores = full_precision(last.cls_seg(features))
            result.terms[group.name] = last.loss_by_feat(scores, list(part))
        return result

    def _features(
        self, maps: Maps, groups: Sequence[Group], result: TaskLosses
    ) -> Iterator[tuple[Group, Tensor]]:
        """The groups, with their maps (b, C, h, w) before the classifier."""
        everywhere = self.waits_for_ranks()
        if self._in_one_call():
            if groups or everywhere:
                features = self.decode_head(maps)
                if not groups:
                    result.touch(features)
                for group in groups:
                    yield group, features[group.part]
            return
        here = {group.name: group for group in groups}
        # All ranks in the same order: the layers that wait for each other count their calls.
        for name in self.last_layers if everywhere else here:
            if name in here:
                yield here[name], self.decode_head(section(maps, here[name].part))
            else:
                result.touch(self.decode_head(section(maps, slice(0, 0))))

    def _in_one_call(self) -> bool:
        if self.joint is not None or not self.training:
            return self.joint is not False or not self.training
        return not any(
            isinstance(module, _BatchNorm) and module.training
            for module in self.decode_head.modules()
        )

    def predict(
        self, maps: Maps, samples: Sequence[Any], groups: Sequence[Group], rescale: bool = True
    ) -> None:
        """See :meth:`TaskDecoder.predict`. Writes ``pred_sem_seg``, (1, h, w) int64."""
        size = metas_of(samples[:1])[0].get('batch_input_shape')
        features = self.decode_head(maps)
        for group in groups:
            last = self.last_layers[group.name]
            scores = full_precision(last.cls_seg(features[group.part]))
            for sample, meta, score in zip(
                samples[group.part], metas_of(samples[group.part]), scores, strict=True
            ):
                full = size or meta.get('pad_shape') or meta['img_shape']
                score = _resized(score, full, last.align_corners)
                height, width = meta['img_shape'][:2]
                score = score[:, :height, :width]  # without the padding
                if rescale:
                    score = _resized(score, meta['ori_shape'], last.align_corners)
                sample.pred_sem_seg = PixelData(data=_classes(score, last.threshold))


def _resized(score: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    wanted = (int(size[0]), int(size[1]))
    if tuple(score.shape[-2:]) == wanted:
        return score
    return F.interpolate(score[None], wanted, mode='bilinear', align_corners=align_corners)[0]


def _classes(score: Tensor, threshold: float | None) -> Tensor:
    if len(score) > 1:
        return score.argmax(0, keepdim=True)
    return (score.sigmoid() > (threshold or 0.5)).long()
