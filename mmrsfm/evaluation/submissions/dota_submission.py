# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of submissions to DOTA's server, and the mean average precision on merged images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger

from mmrsfm.errors import ConfigError, DataError
from mmrsfm.evaluation.submissions.base import Submission, write_zip
from mmrsfm.evaluation.submissions.dota_format import (
    BOX_SIZES,
    VERTEX_ORDERS,
    Detections,
    TaskFiles,
    group_by_image,
    merge_patches,
)
from mmrsfm.registry import METRICS


@METRICS.register_module()
class DOTASubmission(Submission):
    """Merges the detections of patches, and writes the zip file that DOTA's server takes.

    Patches are recognised by their names, ``<image>__<size>__<x>___<y>``, as mmrotate's splitter
    and the tiler of ``data_converters`` give them, or ``<image>__<rate>__<x>___<y>``, as DOTA's
    devkit does, at one scale or several; images that were not split may stand among them.
    Example::

        test_evaluator = dict(type='mmrsfm.DOTASubmission')

    Detections wait in memory (28 bytes each, patches of one image come from any process); merging
    and writing go image by image.

    Args:
        out_dir: The folder, see :class:`mmrsfm.evaluation.submissions.base.Submission`.
        iou_thr: Overlap above which one of two boxes of a class is suppressed.
        task: 1, oriented boxes; 2, horizontal ones (of oriented detections: the enclosing ones).
        predict_box_type: What the model predicts: ``'rbox'``, ``'qbox'`` or, for task 2 alone,
            ``'hbox'``.
        vertex_order: ``'best_begin'`` or ``'rbox'``, see
            :func:`mmrsfm.evaluation.submissions.dota_format.corners`. The server takes both.
        score_digits: Decimals of the scores; ``None``: all. (mmrotate 1.x writes two, which costs
            average precision: https://github.com/open-mmlab/mmrotate/pull/1000.)
        ann_dir: Folder with DOTA's annotations of the whole images, one text file each. Where it is
            given, the mean average precision of the merged detections is computed too.
        diff_thr: Objects with a higher difficulty than this are ignored by that.
        iou_thrs: Overlaps at which it is computed.
        eval_mode: ``'11points'`` (VOC 2007, as DOTA's server) or ``'area'``.
        **kwargs: ``collect_device``, ``collect_dir``, ``prefix``.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    default_prefix = 'dota'

    def __init__(
        self,
        out_dir: str | None = None,
        iou_thr: float = 0.1,
        task: int = 1,
        predict_box_type: str = 'rbox',
        vertex_order: str = 'best_begin',
        score_digits: int | None = None,
        ann_dir: str | None = None,
        diff_thr: int = 100,
        iou_thrs: float | Sequence[float] = 0.5,
        eval_mode: str = '11points',
        **kwargs: Any,
    ) -> None:
        super().__init__(out_dir, **kwargs)
        for name, value, choices in (
            ('task', task, (1, 2)),
            ('predict_box_type', predict_box_type, tuple(BOX_SIZES)),
            ('vertex_order', vertex_order, VERTEX_ORDERS),
            ('eval_mode', eval_mode, ('11points', 'area')),
        ):
            if value not in choices:
                raise ConfigError(f'{type(self).__name__}: {name}={value!r} is none of {choices}')
        if predict_box_type == 'hbox' and (task == 1 or ann_dir is not None):
            raise ConfigError(
                f"{type(self).__name__}: predict_box_type='hbox' has no oriented boxes, which "
                f'{"task=1" if task == 1 else "ann_dir"} needs'
            )
        self.kind = f'DOTA Task {task}'  # type: ignore[misc]
        self.iou_thr = iou_thr
        self.task = task
        self.predict_box_type = predict_box_type
        self.vertex_order = vertex_order
        self.score_digits = score_digits
        self.ann_dir = ann_dir
        self.diff_thr = diff_thr
        self.iou_thrs = [iou_thrs] if isinstance(iou_thrs, float) else list(iou_thrs)
        self.eval_mode = eval_mode

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, from the dataset."""
        meta = self.dataset_meta or {}
        if not meta.get('classes'):
            raise ConfigError(f'{type(self).__name__}: the dataset of the test names no classes')
        return tuple(meta['classes'])

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the detections of one batch.

        Args:
            data_batch: Not used.
            data_samples: With ``img_path`` or ``img_id``, ``ori_shape`` and ``pred_instances``.
        """
        _ = self.folder  # refused now, not when hours of prediction are over
        count, size = len(self.classes), BOX_SIZES[self.predict_box_type]
        for sample in data_samples:
            name = _name_of(sample)
            found = sample['pred_instances']
            boxes = _numbers(found['bboxes']).astype(np.float32)
            labels = _numbers(found['labels']).reshape(-1)
            scores = _numbers(found['scores']).astype(np.float32).reshape(-1)
            if boxes.shape != (len(labels), size) or len(scores) != len(labels):
                raise DataError(
                    f'boxes of shape {boxes.shape}, {len(scores)} scores and {len(labels)} labels '
                    f'are no detections of type {self.predict_box_type!r}',
                    path=name,
                    hint='Set predict_box_type of the metric to what the model predicts',
                )
            if len(labels) and labels.max() >= count:
                raise DataError(
                    f'label {labels.max()} is predicted, and the dataset has {count} classes',
                    path=name,
                    hint="Give the model's head the dataset's number of classes",
                )
            wrong = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
            if wrong.any():
                raise DataError(f'{wrong.sum()} detections are not finite', path=name)
            shape = sample.get('ori_shape')
            size_of_patch = None if shape is None else (int(shape[0]), int(shape[1]))
            self.results.append(
                Detections(name, boxes, scores, labels.astype(np.int32), size_of_patch)
            )

    def compute_metrics(self, results: list) -> dict:
        """Merges, writes, and scores where there are annotations.

        Args:
            results: :class:`Detections` of all patches.

        Returns:
            ``images`` and ``detections``, how many were written; with ``ann_dir`` ``mAP`` and
            ``AP50`` or what the overlaps are, in 0 to 1.
        """
        merged = self._merged(results)
        whole: dict[str, list[np.ndarray]] = {}
        counts = {'images': 0, 'detections': 0}
        files = TaskFiles(
            self.folder, self.classes, self.task, self.predict_box_type,
            self.vertex_order, self.score_digits,
        )  # fmt: skip
        with files:
            for image, _, found in merged:
                counts['images'] += 1
                counts['detections'] += files.write(image, found)
                if self.ann_dir is not None:
                    whole[image] = found
        members = {path.name: path for path in files.paths}
        archive = write_zip(self.folder / f'Task{self.task}.zip', members)
        self.finish(
            [*files.paths, archive],
            f'{archive} ({counts["detections"]} detections in {counts["images"]} images, '
            f'{len(self.classes)} classes) is to be uploaded as it is for Task {self.task} at '
            'https://captain-whu.github.io/DOTA/evaluation.html',
        )
        return counts if self.ann_dir is None else {**self._score(whole), **counts}

    def _merged(
        self, results: Sequence[Detections]
    ) -> Iterator[tuple[str, list[Detections], list[np.ndarray]]]:
        for image, patches in group_by_image(results):
            found = merge_patches(patches, len(self.classes), self.iou_thr, self.predict_box_type)
            yield image, patches, found

    def _score(self, whole: dict[str, list[np.ndarray]]) -> dict:
        from mmrotate.evaluation import eval_rbbox_map

        from mmrsfm.evaluation.submissions.dota_annotations import read_annotations

        assert self.ann_dir is not None
        truths = [
            read_annotations(
                Path(self.ann_dir) / f'{image}.txt',
                self.classes,
                self.diff_thr,
                self.predict_box_type,
            )
            for image in whole
        ]
        scores = {}
        for overlap in self.iou_thrs:
            scores[f'AP{round(overlap * 100):02d}'], _ = eval_rbbox_map(
                list(whole.values()),
                truths,
                iou_thr=overlap,
                use_07_metric=self.eval_mode == '11points',
                box_type=self.predict_box_type,
                dataset=self.classes,
                logger=MMLogger.get_current_instance(),
                nproc=1,
            )
        return {'mAP': float(np.mean(list(scores.values()))), **scores}


def _name_of(sample: dict) -> str:
    path = sample.get('img_path')
    if path is not None:
        return Path(path).stem
    return str(sample['img_id'])


def _numbers(values: Any) -> np.ndarray:
    tensor = getattr(values, 'tensor', values)  # a box type of mmdet or mmrotate
    return tensor.detach().cpu().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
