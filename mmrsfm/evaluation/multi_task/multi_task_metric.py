# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Segmentation, instances and oriented boxes of several datasets, in one unit and one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.multi_task.task_samples import (
    instance_sample,
    rotated_sample,
    semantic_sample,
)
from mmrsfm.registry import METRICS

_VIEWS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]] = {
    'semantic': semantic_sample,
    'instance': instance_sample,
    'rotated': rotated_sample,
}
_STOCK: dict[str, dict[str, Any]] = {
    'semantic': dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']),
    'instance': dict(type='mmdet.CocoMetric', metric=['bbox', 'segm']),
    'rotated': dict(type='mmrotate.DOTAMetric', iou_thrs=0.5, eval_mode='11points'),
}
# What stands for a task in the mean, and what makes percent of the metrics' numbers.
_HEADLINES = {'semantic': 'mIoU', 'instance': 'segm_mAP', 'rotated': 'mAP'}
_FACTORS = {'semantic': 1.0, 'instance': 100.0, 'rotated': 100.0}
SUMMARY = 'multi_task'
_OBJECTS = {'instance': 'gt_instances', 'rotated': 'r_gt_instances'}


@METRICS.register_module()
class MultiTaskMetric(BaseMetric):
    """Runs a metric of the task libraries for each dataset and task; all results are percent.

    Of MTP (arXiv 2403.13430): mIoU with the background counted, COCO's box and mask AP, DOTA's AP50
    with eleven points. Its summary adds mIoU in percent to APs between 0 and 1; here
    ``multi_task/mean`` is the mean of mIoU, mask AP and rotated AP over tasks and datasets, in
    percent, for ``save_best``. Beside it: ``multi_task/semantic`` and so on, the means of a task,
    and ``sota/semantic/mIoU``, ``sota/instance/segm_mAP_50``, ``sota/rotated/mAP`` ... (mmdet
    rounds APs to 0.1 percent).

    A sample counts for a task if it has its label (``tasks`` in its metainfo names them; by default
    all that are there) and its prediction. What no label defines (AP of large objects where there
    is none, any AP where no image has an object) is NaN and left out of the means; a headline
    without any detection is 0. The labels come from the samples, at the size of the
    image's file: the pipeline loads them after it resizes the image.

    Args:
        semantic: Config of the metric of semantic maps, ``None`` for none, or changes of the stock
            ``mmseg.IoUMetric`` (a dict without ``type``).
        instance: The same of boxes and masks, ``mmdet.CocoMetric``. An ``ann_file`` is refused:
            each dataset would need another.
        rotated: The same of oriented boxes, ``mmrotate.DOTAMetric``.
        headlines: By task, the key that stands for it, where it is not ``mIoU``, ``segm_mAP`` and
            ``mAP``; e.g. ``dict(instance='bbox_mAP')`` without masks.
        factors: By task, the factor to percent, for metrics of your own: 1, 100 and 100.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: Not used: the names begin with the dataset.

    Raises:
        ConfigError: For an ``ann_file``, a task without a name, or if nothing is to be evaluated.
    """

    def __init__(
        self,
        semantic: Mapping[str, Any] | None = _STOCK['semantic'],
        instance: Mapping[str, Any] | None = _STOCK['instance'],
        rotated: Mapping[str, Any] | None = _STOCK['rotated'],
        headlines: Mapping[str, str] | None = None,
        factors: Mapping[str, float] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        given = {'semantic': semantic, 'instance': instance, 'rotated': rotated}
        self.configs = {
            task: {**({} if 'type' in cfg else _STOCK[task]), **cfg}
            for task, cfg in given.items()
            if cfg is not None
        }
        if not self.configs:
            raise ConfigError('MultiTaskMetric: every task is None')
        if self.configs.get('instance', {}).get('ann_file') is not None:
            raise ConfigError(
                'MultiTaskMetric takes the instances from the samples: leave ann_file out'
            )
        for name, stated in (('headlines', headlines), ('factors', factors)):
            unknown = set(stated or {}) - set(_VIEWS)
            if unknown:
                raise ConfigError(f'{name}: unknown tasks {sorted(unknown)}, known: {list(_VIEWS)}')
        self.headlines = {**_HEADLINES, **(headlines or {})}
        self.factors = {**_FACTORS, **(factors or {})}
        self._metrics: dict[tuple[str, str], BaseMetric] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Passes each sample to the metrics of its dataset, and keeps what they make of it.

        Args:
            data_batch: Not used.
            data_samples: Samples with labels and predictions, as dicts.
        """
        for sample in data_samples:
            name = self._name_of(sample)
            wanted = sample.get('tasks')
            entries: dict[str, list[Any]] = {}
            labelled: list[str] = []
            for task in self.configs:
                if wanted is not None and task not in wanted:
                    continue
                view = _VIEWS[task](sample)
                if view is None:
                    continue
                if task not in _OBJECTS or _has_objects(sample, _OBJECTS[task]):
                    labelled.append(task)
                metric = self._metric(name, task)
                metric.process({}, [view])
                entries[task], metric.results = metric.results, []
            # One entry a sample: what ranks have twice, to be equally long, is cut off at the end.
            self.results.append((name, entries, labelled))

    def compute_metrics(
        self, results: list[tuple[str, dict[str, list[Any]], list[str]]]
    ) -> dict[str, float]:
        """The metrics of all samples.

        Args:
            results: Of each sample, its dataset, what the metrics of its tasks kept, and the tasks
                of which it has at least one label.

        Returns:
            Name to value, see the class.
        """
        grouped: dict[tuple[str, str], list[Any]] = {}
        for name, entries, _ in results:
            for task, kept in entries.items():
                grouped.setdefault((name, task), []).extend(kept)
        unlabelled = set(grouped) - {(name, task) for name, _, tasks in results for task in tasks}
        values: dict[str, float] = {}
        heads: dict[str, list[float]] = {}
        order = {task: number for number, task in enumerate(_VIEWS)}
        names = list(self._datasets())
        for name, task in sorted(grouped, key=lambda key: (names.index(key[0]), order[key[1]])):
            print_log(f'Evaluating {name}/{task}', logger='current')
            found = self._evaluate(name, task, grouped[name, task])
            factor = self.factors[task]
            for key, value in found.items():
                # mmdet says -1, and mmrotate 0, where there is no label.
                undefined = (task == 'instance' and value == -1) or (name, task) in unlabelled
                values[f'{name}/{task}/{key}'] = math.nan if undefined else float(value) * factor
            # mmdet names nothing where nothing was detected.
            head = values.get(f'{name}/{task}/{self.headlines[task]}', 0.0)
            if math.isfinite(head) and (name, task) not in unlabelled:
                heads.setdefault(task, []).append(head)
        for task, numbers in heads.items():
            values[f'{SUMMARY}/{task}'] = sum(numbers) / len(numbers)
        every = [number for numbers in heads.values() for number in numbers]
        values[f'{SUMMARY}/mean'] = sum(every) / len(every) if every else math.nan
        return values

    def _evaluate(self, name: str, task: str, entries: list[Any]) -> dict[str, Any]:
        metric: Any = self._metric(name, task)
        if task == 'instance':
            for number, entry in enumerate(entries):
                for part in entry:
                    part['img_id'] = number
        found: dict[str, Any] = metric.compute_metrics(entries)
        if task == 'instance':  # it keeps the labels of its first evaluation otherwise
            metric._coco_api = metric.cat_ids = metric.img_ids = None
        return found

    def _metric(self, name: str, task: str) -> BaseMetric:
        if (name, task) not in self._metrics:
            metric: BaseMetric = METRICS.build(dict(self.configs[task]))
            metric.dataset_meta = self._meta_of(name, task)
            self._metrics[name, task] = metric
        return self._metrics[name, task]

    def _datasets(self) -> dict[str, Mapping[str, Any]]:
        """Name to metainfo: of a :class:`mmrsfm.datasets.MultiDataset`, or of a single dataset."""
        meta: Mapping[str, Any] = self.dataset_meta or {}
        if 'datasets' in meta:
            return dict(meta['datasets'])
        return {str(meta.get('dataset_name') or 'dataset'): meta}

    def _name_of(self, sample: Mapping[str, Any]) -> str:
        known = self._datasets()
        name = sample.get('dataset_name')
        if name is None and len(known) == 1:
            return next(iter(known))
        if name not in known:
            raise ConfigError(
                f'{sample.get("img_path", "a sample")} is of dataset {name!r}, the data loader has '
                f'{list(known)}'
            )
        return str(name)

    def _meta_of(self, name: str, task: str) -> dict[str, Any]:
        meta = dict(self._datasets()[name])
        if meta.get('classes') is None:
            raise ConfigError(f'dataset {name!r} has no classes in its metainfo')
        if task == 'semantic':
            # Of pixels; as mmrsfm.MTP has it.
            meta['classes'] = tuple(
                meta.get('semantic_classes') or ('background', *meta['classes'])
            )
        return meta


def _has_objects(sample: Mapping[str, Any], key: str) -> bool:
    return len(sample[key].get('labels', ())) > 0
