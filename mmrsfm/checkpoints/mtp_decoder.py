# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoders of a multi-task pretraining, under the names of the fine-tuning models of one task.

MTP (Wang et al., JSTARS 2024, arXiv 2403.13430) pretrains one encoder with three decoders, whose
last layers exist once for each data set. Its own script renames the rotated branch; here all three
are, the last layers too where a data set is named, and what is left aside is reported. Published
files are taken, and those of :class:`mmrsfm.MTP`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmrsfm.checkpoints.layout import StateDict, get_layout
from mmrsfm.checkpoints.layouts.mtp_model import DECODERS, last_layers_of
from mmrsfm.checkpoints.loading import load_pretrained
from mmrsfm.checkpoints.report import LoadReport, compact
from mmrsfm.checkpoints.traits import SOURCE_KEY, TRAITS_KEY
from mmrsfm.checkpoints.unwrapping import unwrap
from mmrsfm.class_tables import DOTA_V2, SAMRS
from mmrsfm.errors import CheckpointError, ConfigError

BACKGROUND = 'background'
# Of the order of DOTA-2.0, DIOR-R and FAIR1M are those that the fine-tunings use.
FINETUNED_ORDER = {**SAMRS, 'sota': DOTA_V2}


@dataclass(frozen=True)
class _LastLayer:
    """A layer that exists once for each data set.

    Attributes:
        pretrained: Its name in the last layers of the data set.
        ours: Its name in the fine-tuning model.
        rows: Output channels of one class; 0: the layer does not know the classes.
        background: Where the row of the background stands: ``'last'``, ``'named'`` (it is one of
            the classes) or ``'none'``.
    """

    pretrained: str
    ours: str
    rows: int
    background: str


@dataclass(frozen=True)
class _Task:
    """A decoder: the model that it goes into, and its last layers."""

    model: str
    last: tuple[_LastLayer, ...]


TASKS = {
    'rotated': _Task(
        'Oriented R-CNN of mmrotate',
        (
            _LastLayer('bbox_head.fc_cls', 'roi_head.bbox_head.fc_cls', 1, 'last'),
            _LastLayer('bbox_head.fc_reg', 'roi_head.bbox_head.fc_reg', 0, 'none'),
        ),
    ),
    'instance': _Task(
        'Mask R-CNN of mmdet',
        (
            _LastLayer('bbox_head.fc_cls', 'roi_head.bbox_head.fc_cls', 1, 'last'),
            _LastLayer('bbox_head.fc_reg', 'roi_head.bbox_head.fc_reg', 4, 'none'),
            _LastLayer('mask_head.conv_logits', 'roi_head.mask_head.conv_logits', 1, 'none'),
        ),
    ),
    'semantic': _Task(
        'UPerHead of mmseg',
        (_LastLayer('conv_seg', 'decode_head.conv_seg', 1, 'named'),),
    ),
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
    """Takes the encoder and one decoder out of a full file of a multi-task pretraining.

    Args:
        checkpoint: Contents of the file, see :func:`mmrsfm.checkpoints.read_checkpoint`.
        task: ``'rotated'``: Oriented R-CNN of mmrotate. ``'instance'``: Mask R-CNN of mmdet.
            ``'semantic'``: UPerHead of mmseg (of 256 channels, as it was pretrained).
        dataset: ``'sota'``, ``'sior'`` or ``'fast'``, or what another is called in a file of ours:
            its last layers are taken too; ``None``: they keep the initial values of the fine-tuning
            model, as the published script leaves them.
        classes: Classes of the fine-tuning, in its order; for the semantic decoder with
            ``'background'``, if there is one. Default: those of DOTA-2.0, DIOR and FAIR1M-2.0; of
            other data sets their own.
        weights: Entry of the file that holds the weights.

    Returns:
        The weights and the report.

    Raises:
        ConfigError: If the task or the data set is unknown, or has not all of the classes.
        CheckpointError: If the file has no such decoder.
    """
    if task not in TASKS:
        raise ConfigError(f'MTP has no task {task!r}; there are {list(TASKS)}')
    found = unwrap(checkpoint, weights)
    sets = _label_sets(found.meta)
    if dataset is not None and dataset not in sets:
        raise ConfigError(f'MTP was not trained on {dataset!r}; its data sets are {list(sets)}')
    if classes is not None and dataset is None:
        raise ConfigError('classes are those of the last layers: name the data set of these too')
    state, origins = _own_names(found.state, task)
    reuse = DecoderReuse(task, {}, {})
    own = f'decoders.{task}.'
    last = {} if dataset is None else _last_layers(task, dataset)
    for name, value in state.items():
        stem, _, leaf = name.rpartition('.')
        if name.startswith('backbone.'):
            _take(reuse, name, origins[name], value)
        elif stem in last:
            layer = last[stem]
            assert dataset is not None
            order = _Order(layer, dataset, sets[dataset], classes)
            rows, how = order.of(len(value), origins[name])
            new = f'{layer.ours}.{leaf}'
            _take(reuse, new, origins[name], value if rows is None else value[rows])
            if how is not None:
                reuse.reordered[new] = how
        else:
            reason = _why_left(name, task)
            if reason is None:
                _take(reuse, name.removeprefix(own), origins[name], value)
            else:
                reuse.left.setdefault(reason, []).append(origins[name])
    missing = [stem for stem in last if not any(name.rpartition('.')[0] == stem for name in state)]
    if missing:
        published = get_layout('mtp_model').from_mmrsfm({name: torch.empty(0) for name in missing})
        shown = missing if _is_own(found.state) else sorted(published[0])
        raise CheckpointError(f'the file has no last layers of {dataset!r}: {compact(shown)}')
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


def _is_own(state: Mapping[str, Any]) -> bool:
    return any(name.startswith('decoders.') for name in state)


def _own_names(state: StateDict, task: str) -> tuple[StateDict, dict[str, str]]:
    """The entries under the names of :class:`mmrsfm.MTP`, and their names in the file.

    Raises:
        CheckpointError: If the file has no encoder, or no such decoder.
    """
    own = _is_own(state)
    needed = ('backbone.', f'decoders.{task}.') if own else ('encoder.', f'{DECODERS[task]}.')
    for prefix in needed:
        if not any(name.startswith(prefix) for name in state):
            parts = compact(sorted({name.split('.', 1)[0] for name in state}))
            raise CheckpointError(
                f'nothing begins with {prefix!r}, so this is no full model file of MTP (there is '
                f'one beside each "_encoder" file); its parts are {parts}'
            )
    if own:
        return dict(state), {name: name for name in state}
    layout = get_layout('mtp_model')
    origins = {
        next(iter(layout.to_mmrsfm({name: value})[0])): name for name, value in state.items()
    }
    return layout.to_mmrsfm(state)[0], origins


def _label_sets(meta: Mapping[str, Any]) -> dict[str, dict[str, Sequence[str]]]:
    """Names of the classes of each data set: what the file says, or those of SAMRS."""
    stated = (meta.get(TRAITS_KEY) or {}).get('label_sets')
    if stated:
        return {name: dict(one) for name, one in stated.items()}
    return {name: {'classes': classes} for name, classes in SAMRS.items()}


def _last_layers(task: str, dataset: str) -> dict[str, _LastLayer]:
    where = last_layers_of(task, dataset)
    return {f'{where}.{layer.pretrained}': layer for layer in TASKS[task].last}


def _why_left(name: str, task: str) -> str | None:
    """Why an entry that is no encoder's and no wanted last layer's is left aside."""
    parts = name.split('.')
    if parts[0] != 'decoders':
        return 'unknown' if parts[0] != 'weighting' else 'weights of the tasks'
    if parts[2] == 'last_layers':
        return 'last layers of the data sets'
    if parts[1] != task:
        return f'{parts[1]} decoder'
    if name.startswith('decoders.semantic.decode_head.conv_seg.'):
        return 'a classifier that the pretraining does not use'
    return None


@dataclass(frozen=True)
class _Order:
    """Which rows of a last layer go where.

    Attributes:
        layer: The layer.
        dataset: The data set of the pretraining.
        names: Its ``classes``, and perhaps ``semantic_classes``.
        wanted: Classes of the fine-tuning, in its order, or ``None``.
    """

    layer: _LastLayer
    dataset: str
    names: Mapping[str, Sequence[str]]
    wanted: Sequence[str] | None

    def of(self, rows: int, name: str) -> tuple[Tensor | None, str | None]:
        """The numbers of the rows, and that in words; ``None`` where nothing changes.

        Args:
            rows: Output channels of the layer.
            name: Its name in the file.

        Raises:
            CheckpointError: If the rows do not fit the classes.
            ConfigError: If a class is wanted that it does not have.
        """
        if not self.layer.rows:
            return None, None
        theirs = self._theirs(rows, name)
        wanted = self._wanted(theirs)
        places = {label: number for number, label in enumerate(theirs)}
        unknown = [label for label in wanted if label not in places]
        if unknown:
            raise ConfigError(
                f'the last layers of {self.dataset!r} know no '
                f'{", ".join(map(repr, unknown[:5]))}; their classes are {", ".join(places)}. '
                'Without a data set the last layers start anew.'
            )
        order = [places[label] for label in wanted]
        if self.layer.background == 'last' and rows == self.layer.rows * (len(theirs) + 1):
            order.append(len(theirs))
        if order == list(range(rows // self.layer.rows)):
            return None, None
        index = torch.tensor(order)[:, None] * self.layer.rows + torch.arange(self.layer.rows)
        how = f'{len(wanted)} of the {len(places)} classes of {self.dataset}, by name'
        return index.flatten(), how

    def _theirs(self, rows: int, name: str) -> Sequence[str]:
        classes = list(self.names['classes'])
        known = [classes]
        if self.layer.background == 'named':
            known = [list(self.names.get('semantic_classes') or [BACKGROUND, *classes]), classes]
        extra = (0, 1) if self.layer.background == 'last' else (0,)
        for theirs in known:
            if rows in [self.layer.rows * (len(theirs) + more) for more in extra]:
                return theirs
        raise CheckpointError(
            f'{name} has {rows} output channels, which do not fit the {len(classes)} classes of '
            f'{self.dataset!r}'
        )

    def _wanted(self, theirs: Sequence[str]) -> Sequence[str]:
        if self.wanted is not None:
            return list(self.wanted)
        classes = tuple(self.names['classes'])
        if classes != SAMRS.get(self.dataset):
            return list(theirs)
        order = list(FINETUNED_ORDER[self.dataset])
        return [BACKGROUND, *order] if BACKGROUND in theirs else order
