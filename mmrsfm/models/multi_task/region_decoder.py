# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Two-stage detectors whose neck, proposals and heads several data sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmdet.structures.bbox import bbox2roi
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.model import ModuleDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.models.multi_task.seeded_sampler import with_seed
from mmrsfm.models.multi_task.task_decoder import (
    Group,
    Maps,
    TaskDecoder,
    TaskLosses,
    check_labels,
    check_strides,
    full_precision,
    label_of,
    metas_of,
    need,
    section,
    without,
)
from mmrsfm.registry import MODELS

# Entries of a box head that belong to its last layers.
_LAST = (
    'bbox_coder', 'predict_box_type', 'reg_class_agnostic', 'reg_decoded_bbox',
    'reg_predictor_cfg', 'cls_predictor_cfg', 'loss_cls', 'loss_bbox',
)  # fmt: skip


class RegionDecoder(TaskDecoder):
    """A neck, a region proposal network and RoI heads, all of mmdet's or mmrotate's.

    All images go through the shared layers in one call, whatever their data set: none of these
    looks beyond its image (or region), so that this is exact (unless there is a BatchNorm that is
    being trained). Losses are averaged within each data set, as if it had been alone.

    The box head ends before ``fc_cls`` and ``fc_reg``, the mask head before ``conv_logits``; each
    data set has its own, in ``last_layers.<name>.bbox_head`` and ``.mask_head``.

    Args:
        rpn_head: Config of the proposals.
        roi_head: Config of a ``StandardRoIHead``; with a mask head, also with
            ``mask_roi_extractor``. Numbers of classes are not needed.
        train_cfg: ``rpn``, ``rpn_proposal`` and ``rcnn``, as in mmdet.
        test_cfg: ``rpn`` and ``rcnn``.
        classes: Number of classes by the name of the data set.
        neck: Config of the neck, or ``None``.
        joint: ``False``: one call for each data set when training, as published (but for layers
            that exchange statistics with other ranks, which count their calls).
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: For a cascade, or heads that are no two-stage detector's. With the first batch,
            if the maps have other strides than the anchors.
    """

    labels: ClassVar[str]
    ignored: ClassVar[str]
    prediction: ClassVar[str]
    task: ClassVar[str]

    def __init__(
        self,
        rpn_head: Mapping[str, Any],
        roi_head: Mapping[str, Any],
        train_cfg: Mapping[str, Any],
        test_cfg: Mapping[str, Any],
        classes: Mapping[str, int],
        neck: Mapping[str, Any] | None = None,
        joint: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.joint = joint
        self.train_cfg, self.test_cfg = ConfigDict(train_cfg), ConfigDict(test_cfg)
        box = need(roi_head.get('bbox_head'), 'roi_head.bbox_head')
        mask = roi_head.get('mask_head')
        if mask is not None and roi_head.get('mask_roi_extractor') is None:
            raise ConfigError('roi_head with a mask_head needs a mask_roi_extractor here')
        with MODELS.switch_scope_and_registry(self.scope) as registry:
            self.neck = None if neck is None else registry.build(dict(neck))
            self.rpn_head = registry.build(
                {
                    'num_classes': 1,
                    **rpn_head,
                    'train_cfg': self.train_cfg.rpn,
                    'test_cfg': self.test_cfg.rpn,
                }
            )
            stages = {'train_cfg': self.train_cfg.rcnn, 'test_cfg': self.test_cfg.rcnn}
            self.roi_head = registry.build({**roi_head, **stages})
            width = self.roi_head.bbox_head.fc_cls.in_features
            self.last_layers = ModuleDict()
            for name, count in classes.items():
                layers = {'bbox_head': registry.build(_last_box(box, count, width))}
                if mask is not None:
                    wide = self.roi_head.mask_head.conv_logits.in_channels
                    layers['mask_head'] = registry.build(_last_mask(mask, count, wide))
                self.last_layers[name] = ModuleDict(layers)
        self.roi_head.bbox_head.fc_cls = nn.Identity()
        self.roi_head.bbox_head.fc_reg = nn.Identity()
        if mask is not None:
            self.roi_head.mask_head.conv_logits = nn.Identity()

    def _pyramid(self, maps: Maps, metas: Sequence[Mapping[str, Any]] = ()) -> Maps:
        pyramid = tuple(maps if self.neck is None else self.neck(maps))
        size = metas[0].get('batch_input_shape') if metas else None
        strides = getattr(self.rpn_head.prior_generator, 'strides', None)
        if size is not None and strides is not None:
            check_strides(pyramid, [step[::-1] for step in strides], size, self.task)
        return pyramid

    def loss(self, maps: Maps, samples: Sequence[Any], groups: Sequence[Group]) -> TaskLosses:
        """See :meth:`TaskDecoder.loss`. Samples have the instances :attr:`labels`."""
        result = TaskLosses()
        everywhere = self.waits_for_ranks()
        if not groups and everywhere:
            self._touch_shared(maps, result)
        elif groups and (self.joint or everywhere):
            self._add_losses(maps, samples, groups, result)
        if self.joint or everywhere:
            return result
        for group in groups:
            own = samples[group.part]
            alone = Group(group.name, slice(0, len(own)))
            self._add_losses(section(maps, group.part), own, [alone], result)
        return result

    def _touch_shared(self, maps: Maps, result: TaskLosses) -> None:
        """Runs all shared layers, on no image."""
        pyramid = self._pyramid(maps)
        for outputs in self.rpn_head(pyramid):
            for output in outputs:
                result.touch(output)
        features = full_precision(pyramid)
        none = features[0].new_zeros(0, 6)
        for vectors in self._box_features(features, none):
            result.touch(vectors)
        if self.roi_head.with_mask:
            result.touch(self._mask_features(features, none))

    def _add_losses(
        self, maps: Maps, samples: Sequence[Any], groups: Sequence[Group], result: TaskLosses
    ) -> None:
        truth = [self._truth(sample) for sample in samples]
        ignored = [sample.get(self.ignored) for sample in samples]
        for group in groups:
            count = self.last_layers[group.name]['bbox_head'].num_classes
            labels = torch.cat([one.labels for one in truth[group.part]])
            check_labels(labels, count, f'{group.name}: {self.task}')
        seeds = [sample.get('sampling_seed') for sample in samples]
        metas = metas_of(samples)
        pyramid = self._pyramid(maps, metas)
        outputs = full_precision(self.rpn_head(pyramid))
        objects = [
            with_seed(InstanceData(bboxes=one.bboxes, labels=torch.zeros_like(one.labels)), *seed)
            for one, seed in zip(truth, ((seed, self.task, 'rpn') for seed in seeds), strict=True)
        ]
        for group in groups:
            found = self.rpn_head.loss_by_feat(
                *section(outputs, group.part),
                objects[group.part],
                metas[group.part],
                batch_gt_instances_ignore=ignored[group.part],
            )
            result.terms[group.name] = {
                name if 'rpn' in name else f'rpn_{name}': value for name, value in found.items()
            }
        proposals = self.rpn_head.predict_by_feat(
            *outputs,
            batch_img_metas=metas,
            cfg=self.train_cfg.get('rpn_proposal', self.test_cfg.rpn),
        )
        truth = [
            with_seed(one, seed, self.task, 'rcnn') for one, seed in zip(truth, seeds, strict=True)
        ]
        samplings = [self._sampled(*case) for case in zip(proposals, truth, ignored, strict=True)]
        features = full_precision(pyramid)
        self._box_loss(features, samplings, groups, result)
        if self.roi_head.with_mask:
            self._mask_loss(features, samplings, truth, groups, result)

    def _truth(self, sample: Any) -> InstanceData:
        """The objects of a sample, in a container of our own."""
        found = label_of(sample, self.labels, self.task)
        truth = InstanceData(bboxes=found.bboxes, labels=found.labels)
        if self.roi_head.with_mask:
            if 'masks' in found:
                truth.masks = found.masks
            elif not len(found.labels):
                height, width = sample.metainfo['img_shape'][:2]
                empty = np.zeros((0, height, width), dtype=np.uint8)
                truth.masks = BitmapMasks(empty, height, width)
        return truth

    def _sampled(
        self, proposals: InstanceData, truth: InstanceData, ignored: InstanceData | None
    ) -> Any:
        proposals.priors = proposals.pop('bboxes')
        assigned = self.roi_head.bbox_assigner.assign(proposals, truth, ignored)
        return self.roi_head.bbox_sampler.sample(assigned, proposals, truth)

    def _box_features(self, features: Maps, rois: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the layers for classes and for boxes, each (R, D)."""
        found = _extracted(self.roi_head.bbox_roi_extractor, features, rois)
        if self.roi_head.with_shared_head:
            found = self.roi_head.shared_head(found)
        for_classes, for_boxes = self.roi_head.bbox_head(found)
        return for_classes, for_boxes

    def _mask_features(self, features: Maps, rois: Tensor) -> Tensor:
        """What goes into the layer for masks, (R, C, 28, 28)."""
        found = _extracted(self.roi_head.mask_roi_extractor, features, rois)
        if self.roi_head.with_shared_head:
            found = self.roi_head.shared_head(found)
        maps: Tensor = self.roi_head.mask_head(found)
        return maps

    def _box_scores(
        self, name: str, for_classes: Tensor, for_boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        head = self.last_layers[name]['bbox_head']
        scores, boxes = head.fc_cls(for_classes), head.fc_reg(for_boxes)
        return full_precision(scores), full_precision(boxes)

    def _box_loss(
        self, features: Maps, samplings: list[Any], groups: Sequence[Group], result: TaskLosses
    ) -> None:
        rois = bbox2roi([one.priors for one in samplings])
        ends = _ends([len(one.priors) for one in samplings])
        for_classes, for_boxes = self._box_features(features, rois)
        for group in groups:
            part = slice(ends[group.part.start], ends[group.part.stop])
            scores, boxes = self._box_scores(group.name, for_classes[part], for_boxes[part])
            found = self.last_layers[group.name]['bbox_head'].loss_and_target(
                cls_score=scores,
                bbox_pred=boxes,
                rois=rois[part],
                sampling_results=samplings[group.part],
                rcnn_train_cfg=self.roi_head.train_cfg,
            )
            result.terms[group.name].update(found['loss_bbox'])
            if not len(scores):  # no proposal and no object: mmdet leaves the classes out
                result.touch(scores)

    def _mask_loss(
        self,
        features: Maps,
        samplings: list[Any],
        truth: list[InstanceData],
        groups: Sequence[Group],
        result: TaskLosses,
    ) -> None:
        masked = ['masks' in one for one in truth]
        # Images whose objects have boxes alone keep their place in the batch, without a region.
        regions = [
            one.pos_priors if has else one.pos_priors[:0]
            for one, has in zip(samplings, masked, strict=True)
        ]
        ends = _ends([len(one) for one in regions])
        found = self._mask_features(features, bbox2roi(regions))
        for group in groups:
            head = self.last_layers[group.name]['mask_head']
            part = slice(ends[group.part.start], ends[group.part.stop])
            scores = full_precision(head(found[part]))
            images = [i for i in range(group.part.start, group.part.stop) if masked[i]]
            if not len(scores):
                result.touch(scores)
                if images:
                    result.terms[group.name]['loss_mask'] = scores.sum()
                continue
            losses = head.loss_and_target(
                mask_preds=scores,
                sampling_results=[samplings[i] for i in images],
                batch_gt_instances=[truth[i] for i in images],
                rcnn_train_cfg=self.roi_head.train_cfg,
            )
            result.terms[group.name].update(losses['loss_mask'])

    def predict(
        self, maps: Maps, samples: Sequence[Any], groups: Sequence[Group], rescale: bool = True
    ) -> None:
        """See :meth:`TaskDecoder.predict`. Writes the instances :attr:`prediction`."""
        metas = metas_of(samples)
        pyramid = self._pyramid(maps, metas)
        proposals = self.rpn_head.predict_by_feat(
            *full_precision(self.rpn_head(pyramid)), batch_img_metas=metas, cfg=self.test_cfg.rpn
        )
        features = full_precision(pyramid)
        boxes = [one.bboxes for one in proposals]
        rois = bbox2roi(boxes)
        counts = [len(one) for one in boxes]
        ends = _ends(counts)
        for_classes, for_boxes = self._box_features(features, rois)
        results: list[InstanceData] = []
        for group in groups:
            part = slice(ends[group.part.start], ends[group.part.stop])
            scores, deltas = self._box_scores(group.name, for_classes[part], for_boxes[part])
            results += self.last_layers[group.name]['bbox_head'].predict_by_feat(
                rois=rois[part].split(counts[group.part]),
                cls_scores=scores.split(counts[group.part]),
                bbox_preds=deltas.split(counts[group.part]),
                batch_img_metas=metas[group.part],
                rcnn_test_cfg=self.test_cfg.rcnn,
                # Masks are read at the boxes of the input, and rescaled together with them.
                rescale=rescale and not self.roi_head.with_mask,
            )
        if self.roi_head.with_mask:
            self._predict_masks(features, results, metas, groups, rescale)
        for sample, found in zip(samples, results, strict=True):
            setattr(sample, self.prediction, found)

    def _predict_masks(
        self,
        features: Maps,
        results: list[InstanceData],
        metas: list[dict[str, Any]],
        groups: Sequence[Group],
        rescale: bool,
    ) -> None:
        counts = [len(one.bboxes) for one in results]
        ends = _ends(counts)
        found = self._mask_features(features, bbox2roi([one.bboxes for one in results]))
        for group in groups:
            head = self.last_layers[group.name]['mask_head']
            part = slice(ends[group.part.start], ends[group.part.stop])
            head.predict_by_feat(
                mask_preds=full_precision(head(found[part])).split(counts[group.part]),
                results_list=(own := results[group.part]),
                batch_img_metas=metas[group.part],
                rcnn_test_cfg=self.test_cfg.rcnn,
                rescale=rescale,
            )
            results[group.part] = own  # for images without objects mmdet makes a new container


def _last_box(head: Mapping[str, Any], classes: int, width: int) -> dict[str, Any]:
    # On features that are vectors already: a map of one cell.
    return {
        'type': 'mmdet.BBoxHead',
        'in_channels': width,
        'roi_feat_size': 1,
        'num_classes': classes,
        **{key: head[key] for key in _LAST if key in head},
    }


def _last_mask(head: Mapping[str, Any], classes: int, width: int) -> dict[str, Any]:
    layers = ('type', 'num_convs', 'in_channels', 'conv_out_channels', 'upsample_cfg', 'norm_cfg')
    return {
        **without(head, *layers, 'init_cfg'),
        'type': 'mmdet.FCNMaskHead',
        'num_convs': 0,
        'in_channels': width,
        'upsample_cfg': dict(type=None),
        'num_classes': classes,
    }


def _extracted(extractor: Any, features: Maps, rois: Tensor) -> Tensor:
    # mmcv's operators know one memory format.
    maps = [x.contiguous() for x in features[: extractor.num_inputs]]
    found: Tensor = extractor(maps, rois)
    return found


def _ends(counts: Sequence[int]) -> list[int]:
    """Where each image begins among the regions of all, and at last their number."""
    return [0, *np.cumsum(counts, dtype=int).tolist()]
