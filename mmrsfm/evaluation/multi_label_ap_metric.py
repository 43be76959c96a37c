# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Average precision, F1 and precision of images with several labels, macro and micro."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, print_log
from mmpretrain.structures import label_to_onehot
from torch import Tensor
from torchmetrics.functional.classification import (
    multilabel_average_precision,
    multilabel_f1_score,
    multilabel_precision,
)

from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS

KEYS = ('ap_macro', 'ap_micro', 'f1_macro', 'f1_micro', 'precision_macro', 'precision_micro')
# Rules by which SAR-W-MixMAE selects a model; weights of the numbers above.
RULES: dict[str, dict[str, float]] = {
    'weighted': {'f1_macro': 1.3, 'f1_micro': 1.1, 'ap_macro': 1.2, 'precision_macro': 1.2},
    'sum': dict.fromkeys(KEYS, 1.0),
}


@METRICS.register_module()
class MultiLabelAPMetric(BaseMetric):
    """AP, F1 and precision over the labels (macro) and over all decisions (micro), by torchmetrics.

    Results, in percent, below ``multi-label/``: ``ap_macro``, ``ap_micro``, ``f1_macro``,
    ``f1_micro``, ``precision_macro``, ``precision_micro``; with ``per_class`` also ``ap/<class>``;
    and one number for each of ``selection_rules``, to choose a checkpoint by on the validation
    split (``CheckpointHook(save_best='multi-label/weighted', rule='greater')``):

    * ``weighted``: 1.3 f1_macro + 1.1 f1_micro + 1.2 ap_macro + 1.2 precision_macro, SAR-W-MixMAE's
      ``checkpoint_best``;
    * ``sum``: the sum of all six, its ``best_default``;
    * ``wins``: its ``best_mbr``, as far as that is described: the number of times that a new best
      was found. An epoch is the new best if it is above the best before it in more of the six
      numbers than it is below; with as many of both, if it is above in the first number, in the
      order above, in which they differ. The best so far is kept in MMEngine's message hub, and so
      in checkpoints.

    A label without a positive image in the data has an AP, F1 and precision of 0 in torchmetrics,
    and pulls the macro averages down; a log message names such labels. ``absent='ignore'`` averages
    over the others; published numbers are those of ``'count'``.

    Args:
        thr: Scores, in [0, 1], above it are a label, for F1 and precision.
        absent: ``'count'`` or ``'ignore'``: labels without a positive image in macro averages.
        selection_rules: Which of the rules are reported.
        per_class: Whether AP of each class is reported.
        collect_device: See MMEngine.
        prefix: Before the names of the numbers.

    Raises:
        ConfigError: For an unknown rule; while evaluating, for samples without scores or labels, or
            scores that are NaN or outside of [0, 1].
    """

    default_prefix: ClassVar[str | None] = 'multi-label'

    def __init__(
        self,
        thr: float = 0.5,
        absent: str = 'count',
        selection_rules: Sequence[str] = (),
        per_class: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        unknown = set(selection_rules) - {*RULES, 'wins'}
        if unknown or absent not in ('count', 'ignore') or not 0 <= thr <= 1:
            raise ConfigError(
                f"MultiLabelAPMetric: selection_rules are of {[*RULES, 'wins']}, absent is 'count' "
                f"or 'ignore', thr in [0, 1]; got {list(selection_rules)}, {absent!r}, {thr}"
            )
        self.thr = thr
        self.absent = absent
        self.selection_rules = tuple(selection_rules)
        self.per_class = per_class

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps the scores and labels of a batch."""
        for sample in data_samples:
            score = sample.get('pred_score')
            if score is None:
                raise ConfigError('MultiLabelAPMetric: the model gives no pred_score')
            target = sample.get('gt_score')
            if target is None:
                label = sample.get('gt_label')
                if label is None:
                    raise ConfigError('MultiLabelAPMetric: the samples have no gt_label')
                target = label_to_onehot(label.cpu(), len(score))
            self.results.append((score.detach().float().cpu(), target.detach().cpu().bool()))

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """The numbers; see the class."""
        scores = torch.stack([score for score, _ in results])
        targets = torch.stack([target for _, target in results]).long()
        if not ((scores >= 0) & (scores <= 1)).all():
            # torchmetrics would take them for logits.
            raise ConfigError(
                'MultiLabelAPMetric: pred_score must lie in [0, 1]; the model gives '
                f'{float(scores.min()):g} to {float(scores.max()):g} (NaN: it has diverged)'
            )
        numbers, by_class = self.calculate(scores, targets)
        self._say_absent(targets)
        metrics = dict(numbers)
        for rule in self.selection_rules:
            metrics[rule] = self._rule(rule, numbers)
        if self.per_class:
            names = (self.dataset_meta or {}).get('classes') or range(len(by_class))
            for name, value in zip(names, by_class.tolist(), strict=True):
                metrics[f'ap/{name}'] = value
        return metrics

    def calculate(self, scores: Tensor, targets: Tensor) -> tuple[dict[str, float], Tensor]:
        """The six numbers, and AP of each label, in percent.

        Args:
            scores: Shape (N, K), in [0, 1].
            targets: Shape (N, K), of 0 and 1.
        """
        count = scores.shape[1]
        known = targets.any(0) if self.absent == 'ignore' else torch.ones(count, dtype=torch.bool)
        numbers: dict[str, float] = {}
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='No positive samples found')
            options: dict[str, Any] = {'num_labels': count, 'average': 'none'}
            by_class = multilabel_average_precision(scores, targets, **options) + 0.0  # no -0
            f1 = multilabel_f1_score(scores, targets, threshold=self.thr, **options)
            precision = multilabel_precision(scores, targets, threshold=self.thr, **options)
            options['average'] = 'micro'
            numbers['ap_macro'] = float(by_class[known].double().mean()) * 100
            micro = multilabel_average_precision(scores, targets, **options)
            numbers['ap_micro'] = float(micro) * 100
            options['threshold'] = self.thr
            numbers['f1_macro'] = float(f1[known].double().mean()) * 100
            numbers['f1_micro'] = float(multilabel_f1_score(scores, targets, **options)) * 100
            numbers['precision_macro'] = float(precision[known].double().mean()) * 100
            micro = multilabel_precision(scores, targets, **options)
            numbers['precision_micro'] = float(micro) * 100
        return numbers, by_class * 100

    def _rule(self, rule: str, numbers: Mapping[str, float]) -> float:
        if rule != 'wins':
            return sum(weight * numbers[key] for key, weight in RULES[rule].items())
        hub = MessageHub.get_current_instance()
        key = f'{self.prefix}_wins'
        state = hub.get_info(key, default=None)
        if state is None or _beats(numbers, state['best']):
            state = {'best': dict(numbers), 'wins': 1 + (0 if state is None else state['wins'])}
            hub.update_info(key, state)
        return float(state['wins'])

    def _say_absent(self, targets: Tensor) -> None:
        absent = (~targets.bool().any(0)).nonzero().flatten().tolist()
        if not absent:
            return
        names = (self.dataset_meta or {}).get('classes')
        listed = [names[at] if names else at for at in absent]
        how = 'count as 0 in' if self.absent == 'count' else 'are left out of'
        print_log(
            f'multi-label: {len(absent)} labels without a positive image {how} the macro averages: '
            f'{listed}',
            logger='current',
        )


def _beats(new: Mapping[str, float], best: Mapping[str, float]) -> bool:
    above = sum(new[key] > best[key] for key in KEYS)
    below = sum(new[key] < best[key] for key in KEYS)
    if above != below:
        return above > below
    differing = next((key for key in KEYS if new[key] != best[key]), None)
    return differing is not None and new[differing] > best[differing]
