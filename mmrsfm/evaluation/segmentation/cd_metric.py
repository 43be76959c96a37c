# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The numbers by which change detection is compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric

from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.registry import METRICS

KEYS = ('F1', 'precision', 'recall', 'IoU', 'OA', 'kappa')


@METRICS.register_module()
class CDMetric(IoUMetric):
    """F1, precision, recall and IoU of the changed class, as scalars.

    Papers report these; mmseg's IoUMetric prints them in a table and returns means over both
    classes. Pixels of all images (and ranks) are counted together::

        precision = TP / (TP + FP)        F1  = 2 TP / (2 TP + FP + FN)
        recall    = TP / (TP + FN)        IoU = TP / (TP + FP + FN)

    besides the overall accuracy ``OA`` and Cohen's ``kappa`` of changed against not changed.
    Percent with two decimals, except kappa, in [-1, 1] with four. It stands beside
    ``mmseg.IoUMetric``, or alone: with ``iou_metrics`` it prints and returns what that does, too.

    A number whose divisor is zero is NaN, as in mmseg, and logged: precision if nothing is
    predicted as changed, recall if nothing has changed, all four if both. F1 is 0, not NaN, if
    there is anything to miss or to invent.

    Args:
        changed_class: Number or name of the class.
        iou_metrics: What to return besides, as IoUMetric does: any of ``'mIoU'``, ``'mFscore'``,
            ``'mDice'``. (Two metrics that return the same names need a ``prefix`` each.)
        nan_to_num: Put this in the place of NaN.
        ignore_index: Label of pixels that do not count.
        **kwargs: As of mmseg's IoUMetric. With ``output_dir``, maps of class numbers are written,
            named like the first date; ``mmrsfm.ChangeMapSubmission`` writes white on black.

    Raises:
        ConfigError: While evaluating, if there is no such class.
        ImageSizeError: While evaluating, if a map and its prediction differ in size.
    """

    def __init__(
        self,
        changed_class: int | str = 'changed',
        iou_metrics: Sequence[str] = (),
        nan_to_num: int | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            ignore_index=ignore_index,
            iou_metrics=list(iou_metrics),
            nan_to_num=nan_to_num,
            **kwargs,
        )
        self.changed_class = changed_class

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Counts the pixels of a batch.

        Args:
            data_batch: Not used.
            data_samples: With ``pred_sem_seg`` and ``gt_sem_seg``.
        """
        samples = []
        for sample in data_samples:
            path = sample.get('img_path')
            first = path[0] if isinstance(path, (list, tuple)) else path
            if not self.format_only:
                _check_shapes(sample, first)
            samples.append({**sample, 'img_path': first})
        super().process(data_batch, samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The numbers of all batches.

        Args:
            results: What :meth:`process` gathered, on all ranks.

        Returns:
            ``F1``, ``precision``, ``recall``, ``IoU``, ``OA``, ``kappa`` and what was asked for
            besides.
        """
        if self.format_only:
            return dict(super().compute_metrics(results))
        metrics = dict(super().compute_metrics(results)) if self.metrics else {}
        changed = self._index()
        # Counts of a whole test set are beyond what float32 counts.
        intersect, _, predicted, labelled = (
            sum(result[part].double() for result in results) for part in range(4)
        )
        own = change_scores(
            true_positive=float(intersect[changed]),
            predicted=float(predicted[changed]),
            labelled=float(labelled[changed]),
            total=float(labelled.sum()),
        )
        undefined = [key for key in KEYS if math.isnan(own[key])]
        if undefined:
            print_log(
                f'{", ".join(undefined)}: not defined, for {predicted[changed]:.0f} pixels are '
                f'predicted as changed and {labelled[changed]:.0f} are labelled so.',
                logger='current',
                level=30,
            )
            if self.nan_to_num is not None:
                own.update(dict.fromkeys(undefined, float(self.nan_to_num)))
        for key in KEYS:
            metrics[key] = round(own[key], 4) if key == 'kappa' else round(100 * own[key], 2)
        return metrics

    def _index(self) -> int:
        classes = list(self.dataset_meta['classes'])
        index = self.changed_class
        if isinstance(index, str):
            if index in classes:
                return classes.index(index)
            if index == 'changed' and len(classes) == 2:
                return 1  # whatever a dataset of two classes calls it
        elif 0 <= index < len(classes):
            return index
        raise ConfigError(
            f'CDMetric: changed_class={self.changed_class!r}, but the dataset has the classes '
            f'{classes}'
        )


def change_scores(
    true_positive: float, predicted: float, labelled: float, total: float
) -> dict[str, float]:
    """The scores of one class against all others.

    Args:
        true_positive: Pixels of the class that are predicted as such.
        predicted: Pixels that are predicted as the class.
        labelled: Pixels of the class.
        total: All pixels that count.

    Returns:
        ``F1``, ``precision``, ``recall``, ``IoU``, ``OA`` in [0, 1] and ``kappa`` in [-1, 1]; NaN
        where a divisor is zero.
    """
    agree = total - predicted - labelled + 2 * true_positive
    accuracy = _ratio(agree, total)
    by_chance = _ratio(
        predicted * labelled + (total - predicted) * (total - labelled), total * total
    )
    return {
        'F1': _ratio(2 * true_positive, predicted + labelled),
        'precision': _ratio(true_positive, predicted),
        'recall': _ratio(true_positive, labelled),
        'IoU': _ratio(true_positive, predicted + labelled - true_positive),
        'OA': accuracy,
        'kappa': _ratio(accuracy - by_chance, 1 - by_chance),
    }


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan


def _check_shapes(sample: dict[str, Any], path: str | None) -> None:
    if 'gt_sem_seg' not in sample:
        raise ConfigError(
            f'CDMetric: there is no map of change for {path}. Put MultiImgLoadAnnotations into the '
            "pipeline and seg_map_path into the dataset's data_prefix, or predict without labels: "
            'mmrsfm.ChangeMapSubmission'
        )
    label, predicted = (sample[key]['data'].shape for key in ('gt_sem_seg', 'pred_sem_seg'))
    if tuple(label[-2:]) != tuple(predicted[-2:]):
        raise ImageSizeError(
            f'the map of change is {tuple(label[-2:])}, the prediction, at the size of the image '
            f'as it was read, {tuple(predicted[-2:])}',
            path=path,
            hint='Put MultiImgLoadAnnotations after MultiImgResize in the pipeline of the test',
        )
