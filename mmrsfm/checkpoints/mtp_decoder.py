# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoders of a full MTP file, under the names of the fine-tuning models of one task.

MTP (Wang et al., JSTARS 2024, arXiv 2403.13430) pretrains one encoder with three decoders, whose
last layers exist once for each data set of SAMRS. Its own script renames the rotated branch; here
all three are, the last layers too where a data set is named, and what is left aside is reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmrsfm.checkpoints.layout import StateDict
from mmrsfm.checkpoints.loading import load_pretrained
from mmrsfm.checkpoints.report import LoadReport, compact
from mmrsfm.checkpoints.traits import SOURCE_KEY
from mmrsfm.checkpoints.unwrapping import unwrap
from mmrsfm.class_tables import DOTA_V2, SAMRS
from mmrsfm.errors import CheckpointError, ConfigError

BACKGROUND = 'background'
# Of the order of DOTA-2.0, DIOR-R and FAIR1M are those that the fine-tunings use.
FINETUNED_ORDER = {**SAMRS, 'sota': DOTA_V2}
_NUMBERS = {name: number for number, name in enumerate(SAMRS, 1)}
_ENCODER = 'encoder.'


@dataclass(frozen=True)
class _LastLayer:
    """A layer that exists once for each data set.

    Attributes:
        theirs: Its name, with ``{n}`` for the number of the data set.
        ours: Its name in the fine-tuning model.
        rows: Output channels of one class; 0: the layer does not know the classes.
        background: Where the row of the background stands: ``'last'``, ``'first'`` or ``'none'``.
    """

    theirs: str
    ours: str
    rows: int
    background: str


@dataclass(frozen=True)
class _Task:
    """A decoder: the model that it goes into, its prefix and its last layers."""

    model: str
    prefix: str
    last: tuple[_LastLayer, ...]


TASKS = {
    'rotated': _Task(
        'Oriented R-CNN of mmrotate',
        'rotdetdecoder.',
        (
            _LastLayer('rotdetroiboxhead_fc_cls{n}', 'roi_head.bbox_head.fc_cls', 1, 'last'),
            _LastLayer('rotdetroiboxhead_fc_reg{n}', 'roi_head.bbox_head.fc_reg', 0, 'none'),
        ),
    ),
    'instance': _Task(
        'Mask R-CNN of mmdet',
        'inssegdecoder.',
        (
            _LastLayer('inssegroiboxhead_fc_cls{n}', 'roi_head.bbox_head.fc_cls', 1, 'last'),
            _LastLayer('inssegroiboxhead_fc_reg{n}', 'roi_head.bbox_head.fc_reg', 4, 'none'),
            _LastLayer('inssegroimaskhead_conv{n}', 'roi_head.mask_head.conv_logits', 1, 'none'),
        ),
    ),
    'semantic': _Task(
        'UPerHead of mmseg',
        'semsegdecoder.',
        (_LastLayer('semseghead_{n}.1', 'decode_head.conv_seg', 1, 'first'),),
    ),
}
_ANY_LAST = {
    re.compile(re.escape(layer.theirs).replace(r'\{n\}', r'[1-3]') + r'\.')
    for task in TASKS.values()
    for layer in task.last
}


@dataclass
class DecoderReuse:
    """The weights of one task, and what became of each entry of the file.

    Attributes:
        task: ``'rotated'``, ``'instance'`` or ``'semantic'``.
        state: Name to tensor, under the names of the fine-tuning model.
        taken: Their names, by ours.
        reordered: Last layers whose rows were brought into another order of classes, and how.
        left: Names of the file that were left aside, by reason.
        loaded: What happened when the weights were fitted to a model.
    """

    task: str
    state: StateDict = field(repr=False)
    taken: dict[str, str]
    reordered: dict[str, str] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    loaded: LoadReport | None = None

    def summary(self) -> str:
        """A few lines: what was taken, resized, put in order, left, and has another shape."""
        names = list(self.taken)
        backbone = [name for name in names if name.startswith('backbone.')]
        lines = [
            f'{self.task} decoder of MTP -> {TASKS[self.task].model}: {len(backbone)} entries of '
            f'the encoder, {len(names) - len(backbone)} of the decoder'
        ]
        parts: dict[str, int] = {}
        for name in names:
            part = name.split('.', 1)[0]
            parts[part] = parts.get(part, 0) + 1
        lines.append('  taken: ' + ', '.join(f'{part} ({n})' for part, n in parts.items()))
        lines += [f'  put in order: {name}: {how}' for name, how in self.reordered.items()]
        lines += [f'  left ({why}): {compact(found)}' for why, found in self.left.items()]
        if self.loaded is not None:
            lines += [f'  resized: {name}: {how}' for name, how in self.loaded.resized.items()]
            if self.loaded.missing:
                lines.append(f'  as the model initialises it: {compact(self.loaded.missing)}')
        return '\n'.join(lines)

    def content(self, origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What to write to a file, for ``load_from`` or ``mmrsfm.Pretrained`` of a whole model.

        Args:
            origin: What to note about the file that it came from.
        """
        # Contiguous and unshared: views would drag their whole storage into the file.
        tensors = {name: value.detach().clone().contiguous() for name, value in self.state.items()}
        source = {'layout': 'mtp', 'part': self.task, **(origin or {})}
        return {'state_dict': tensors, 'meta': {SOURCE_KEY: source}}


def reuse_mtp_decoder(
    checkpoint: Mapping[str, Any],
    task: str,
    dataset: str | None = None,
    classes: Sequence[str] | None = None,
    weights: str = 'auto',
) -> DecoderReuse:
    """Takes the encoder and one decoder out of a full MTP file.

    Args:
        checkpoint: Contents of the file, see :func:`mmrsfm.checkpoints.read_checkpoint`.
        task: ``'rotated'``: Oriented R-CNN of mmrotate. ``'instance'``: Mask R-CNN of mmdet.
            ``'semantic'``: UPerHead of mmseg (of 256 channels, as it was pretrained).
        dataset: ``'sota'``, ``'sior'`` or ``'fast'``: its last layers are taken too; ``None``: they
            keep the initial values of the fine-tuning model, as the published script leaves them.
        classes: Classes of the fine-tuning, in its order; for the semantic decoder with
            ``'background'``, if there is one. Defaults to those of DOTA-2.0, DIOR and FAIR1M-2.0.
        weights: Entry of the file that holds the weights.

    Returns:
        The weights and the report.

    Raises:
        ConfigError: If the task or the data set is unknown, or has not all of the classes.
        CheckpointError: If the file has no such decoder.
    """
    if task not in TASKS:
        raise ConfigError(f'MTP has no task {task!r}; there are {list(TASKS)}')
    if dataset is not None and dataset not in SAMRS:
        raise ConfigError(f'MTP was not trained on {dataset!r}; its data sets are {list(SAMRS)}')
    if classes is not None and dataset is None:
        raise ConfigError('classes are those of the last layers: name the data set of these too')
    state = unwrap(checkpoint, weights).state
    prefix = TASKS[task].prefix
    for needed in (_ENCODER, prefix):
        if not any(name.startswith(needed) for name in state):
            parts = compact(sorted({name.split('.', 1)[0] for name in state}))
            raise CheckpointError(
                f'nothing begins with {needed!r}, so this is no full model file of MTP (there is '
                f'one beside each "_encoder" file); its parts are {parts}'
            )
    reuse = DecoderReuse(task, {}, {})
    last = _last_layers(task, dataset)
    for name, value in state.items():
        stem, _, leaf = name.rpartition('.')
        if name.startswith(_ENCODER):
            _take(reuse, f'backbone.{name.removeprefix(_ENCODER)}', name, value)
        elif stem in last:
            layer = last[stem]
            assert dataset is not None
            rows, how = _order(layer, len(value), dataset, classes, name)
            new = f'{layer.ours}.{leaf}'
            _take(reuse, new, name, value if rows is None else value[rows])
            if how is not None:
                reuse.reordered[new] = how
        else:
            ours = name.removeprefix(prefix)
            reason = _why_left(name, ours, task)
            if reason is None:
                _take(reuse, ours, name, value)
            else:
                reuse.left.setdefault(reason, []).append(name)
    found = {name.rpartition('.')[0] for name in reuse.taken.values()}
    if set(last) - found:
        raise CheckpointError(
            f'the file has no last layers of {dataset!r}: {compact(sorted(set(last) - found))}'
        )
    return reuse


def fit_to_model(reuse: DecoderReuse, model: nn.Module) -> DecoderReuse:
    """Keeps what a model has a place for; position tables are resized to its grid.

    Args:
        reuse: What was taken from the file.
        model: The fine-tuning model, with a ``backbone`` that the encoder fills completely. It
            holds the weights afterwards.

    Returns:
        The weights as the model holds them; what has another shape, or no place, is in the report.

    Raises:
        IncompleteLoadError: If the backbone is of another architecture.
    """
    left = {reason: list(names) for reason, names in reuse.left.items()}
    # A layer is taken whole or not at all: no old bias beside new weights. (Of the backbone, tables
    # are resized; anything else of another shape is an error.)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    unfit = {
        name.rpartition('.')[0]: f'{tuple(value.shape)} in the file, {tuple(shapes[name])} here'
        for name, value in reversed(reuse.state.items())
        if not name.startswith('backbone.') and value.shape != shapes.get(name, value.shape)
    }
    offered = {}
    for name, value in reuse.state.items():
        reason = unfit.get(name.rpartition('.')[0])
        if name not in shapes or name.startswith('backbone.') or reason is None:
            offered[name] = value
        else:
            left.setdefault(f'another shape: {reason}', []).append(reuse.taken[name])
    report = load_pretrained(model, {'state_dict': offered}, layout='mmrsfm')
    now = model.state_dict()
    state = {name: now[name] for name in report.matched}
    taken = {name: reuse.taken[name] for name in report.matched}
    reordered = {name: how for name, how in reuse.reordered.items() if name in taken}
    for name in offered:
        if name not in taken:
            left.setdefault('no place in the model', []).append(reuse.taken[name])
    return DecoderReuse(reuse.task, state, taken, reordered, left, report)


def _take(reuse: DecoderReuse, new: str, old: str, value: Tensor) -> None:
    if new in reuse.taken:
        raise CheckpointError(f'{old!r} and {reuse.taken[new]!r} would both become {new!r}')
    reuse.state[new] = value
    reuse.taken[new] = old


def _last_layers(task: str, dataset: str | None) -> dict[str, _LastLayer]:
    if dataset is None:
        return {}
    number = str(_NUMBERS[dataset])
    return {layer.theirs.replace('{n}', number): layer for layer in TASKS[task].last}


def _why_left(name: str, ours: str, task: str) -> str | None:
    """Why an entry that is no encoder's and no wanted last layer's is left aside."""
    if any(pattern.match(name) for pattern in _ANY_LAST):
        return 'last layers of the data sets'
    if name == ours:
        others = [other for other, entry in TASKS.items() if name.startswith(entry.prefix)]
        return f'{others[0]} decoder' if others else 'unknown'
    if task == 'semantic' and ours.startswith('decode_head.conv_seg.'):
        return 'a classifier that the pretraining does not use'
    return None


def _order(
    layer: _LastLayer, rows: int, dataset: str, classes: Sequence[str] | None, name: str
) -> tuple[Tensor | None, str | None]:
    """Which rows of a last layer go where, and that in words; ``None`` where nothing changes."""
    if not layer.rows:
        return None, None
    theirs = SAMRS[dataset]
    wanted = list(FINETUNED_ORDER[dataset] if classes is None else classes)
    with_background = rows == layer.rows * (len(theirs) + 1)
    if rows != layer.rows * len(theirs) and not with_background:
        raise CheckpointError(
            f'{name} has {rows} output channels, which do not fit the {len(theirs)} classes of '
            f'{dataset!r}'
        )
    first = with_background and layer.background == 'first'
    if first and classes is None:
        wanted = [BACKGROUND, *wanted]
    places = {label: number + int(first) for number, label in enumerate(theirs)}
    if first:
        places[BACKGROUND] = 0
    unknown = [label for label in wanted if label not in places]
    if unknown:
        raise ConfigError(
            f'the last layers of {dataset!r} know no {", ".join(map(repr, unknown[:5]))}; their '
            f'classes are {", ".join(places)}. Without a data set the last layers start anew.'
        )
    order = [places[label] for label in wanted]
    if with_background and layer.background == 'last':
        order.append(len(theirs))
    if order == list(range(rows // layer.rows)):
        return None, None
    index = torch.tensor(order)[:, None] * layer.rows + torch.arange(layer.rows)
    return index.flatten(), f'{len(wanted)} of the {len(places)} classes of {dataset}, by name'
