# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MTP: one encoder, pretrained by several tasks on several data sets at once.

"MTP: Advancing Remote Sensing Foundation Model via Multi-Task Pretraining" (Wang et al., JSTARS
2024, arXiv 2403.13430; ViTAE-Transformer/MTP, MIT). Written anew from a description of the
published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from mmengine.model import BaseModel, ModuleDict
from torch import Tensor, nn

from mmrsfm.errors import ConfigError, DataError
from mmrsfm.models.multi_task.label_sets import LabelSet, parse_label_sets
from mmrsfm.models.multi_task.random_labels import random_samples
from mmrsfm.models.multi_task.task_decoder import Group, Maps, TaskDecoder, TaskLosses
from mmrsfm.registry import MODELS

UNCERTAINTY = 'uncertainty'
DECODER_TYPES = {
    'semantic': 'mmrsfm.SemanticDecoder',
    'instance': 'mmrsfm.InstanceDecoder',
    'rotated': 'mmrsfm.RotatedDecoder',
}
DECODER_INITS = ('openmmlab', 'as_published')


@MODELS.register_module()
class MTP(BaseModel):
    """An encoder, a decoder a task that all data sets share, and last layers for each data set.

    The encoder runs once on the whole batch, whatever data sets its images are of. Each decoder
    runs on the images that have its kind of label; a data set, or a kind of label, may be missing
    from a batch, and an image may have no object at all. Losses are averaged within each data set,
    and added up: over tasks and data sets, as published. They are called
    ``<data set>/<task>/loss_<what>``.

    All ranks give every trained parameter a gradient for every batch, if need be of 0, so that
    DistributedDataParallel needs no search for unused parameters.

    A sample says ``dataset_name`` (not needed where the model has a single data set) and may say
    ``tasks``, the kinds of label that it has (otherwise all that its data set has here). Further
    data sets are further entries; one that is left out does not take part.

    Example::

        model=dict(
            type='mmrsfm.MTP',
            backbone=dict(type='mmrsfm.RVSAViT', arch='base', img_size=224),
            decoders=dict(semantic=dict(decode_head=dict(type='UPerHead', ...)),
                          rotated=dict(neck=..., rpn_head=..., roi_head=..., train_cfg=..., ...)),
            datasets=[dict(name='sota'), dict(name='sior', tasks=['semantic']),
                      dict(name='mine', classes=('house', 'tree'))])

    Args:
        backbone: Any backbone that gives the maps which the decoders take.
        decoders: By task, ``'semantic'``, ``'instance'`` and ``'rotated'``, or some of them, the
            arguments of :class:`SemanticDecoder`, :class:`InstanceDecoder`,
            :class:`RotatedDecoder`. A task of another name needs the ``type`` of its own
            :class:`~mmrsfm.models.multi_task.task_decoder.TaskDecoder`.
        datasets: For each data set ``name``; ``classes``, their names or number (not needed for
            SAMRS: ``'sota'``, ``'sior'``, ``'fast'``); ``semantic_classes`` (default: the
            background, then the ``classes``); ``tasks`` (default: all).
        task_weights: ``None``: all 1. A factor by task. ``'uncertainty'``: learnt
            (:class:`mmrsfm.TaskWeighting`).
        decoder_init: ``'openmmlab'``: decoders are initialised as their libraries do in their own
            models. ``'as_published'``: they stay as their constructors leave them, because the
            published code never calls ``init_weights``.
        data_preprocessor: Config; see :class:`mmrsfm.MTPDataPreprocessor`.
        init_cfg: MMEngine's initialisation config. ``mmrsfm.Pretrained`` here takes full models of
            MTP, decoders included; in ``backbone`` it takes encoders.

    Attributes:
        label_sets: The data sets, by name.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decoders: Mapping[str, Mapping[str, Any]],
        datasets: Sequence[Mapping[str, Any]],
        task_weights: str | Mapping[str, float] | None = None,
        decoder_init: str = 'openmmlab',
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if decoder_init not in DECODER_INITS:
            raise ConfigError(f'decoder_init is one of {DECODER_INITS}, got {decoder_init!r}')
        if not decoders:
            raise ConfigError('MTP needs decoders: semantic, instance, rotated, or some of them')
        self.decoder_init = decoder_init
        self.backbone = MODELS.build(backbone)
        self.label_sets = {one.name: one for one in parse_label_sets(datasets, list(decoders))}
        self._places = {name: number for number, name in enumerate(self.label_sets)}
        self.decoders = ModuleDict(
            {task: self._built(task, config) for task, config in decoders.items()}
        )
        self.weights = self._read_weights(task_weights)

    def _built(self, task: str, config: Mapping[str, Any]) -> nn.Module:
        settings = dict(config)
        kind = settings.pop('type', DECODER_TYPES.get(task))
        if kind is None:
            raise ConfigError(
                f'decoders: {task!r} is none of {list(DECODER_TYPES)}, and has no type of its own'
            )
        classes = {
            one.name: one.num_classes(task) for one in self.label_sets.values() if task in one.tasks
        }
        return MODELS.build(dict(settings, type=kind, classes=classes))

    def _read_weights(self, given: str | Mapping[str, float] | None) -> dict[str, float]:
        tasks = list(self.decoders)
        self.weighting: Any = None
        if given == UNCERTAINTY:
            self.weighting = MODELS.build(dict(type='mmrsfm.TaskWeighting', tasks=tasks))
            given = None
        if isinstance(given, str):
            raise ConfigError(
                f"task_weights is a factor by task, None or '{UNCERTAINTY}', got {given!r}"
            )
        unknown = set(given or ()) - set(tasks)
        if unknown:
            raise ConfigError(f'task_weights of {sorted(unknown)}, but the tasks are {tasks}')
        return {task: float((given or {}).get(task, 1.0)) for task in tasks}

    def init_weights(self) -> None:
        """Initialises the model; see ``decoder_init``."""
        if self.decoder_init == 'as_published':
            for module in self.decoders.modules():
                if hasattr(module, 'is_init'):
                    module.is_init = True  # type: ignore[assignment]
        super().init_weights()

    def extract_feat(self, inputs: Tensor) -> Maps:
        """Encodes images.

        Args:
            inputs: (B, C, H, W), normalised.

        Returns:
            The maps of the backbone.
        """
        maps = self.backbone(inputs)
        return tuple(maps) if isinstance(maps, list | tuple) else (maps,)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> Any:
        """MMEngine's entry.

        Args:
            inputs: (B, C, H, W), normalised.
            data_samples: B data samples; not needed for ``'tensor'``.
            mode: ``'loss'``: :meth:`loss`. ``'predict'``: :meth:`predict`. ``'tensor'``:
                :meth:`extract_feat`.

        Raises:
            ConfigError: For another mode, or without samples where they are needed.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode not in ('loss', 'predict') or data_samples is None:
            raise ConfigError(f'mode {mode!r} is none of loss, predict, tensor, or has no samples')
        return (
            self.loss(inputs, data_samples)
            if mode == 'loss'
            else self.predict(inputs, data_samples)
        )

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Any]:
        """Computes the losses of a batch.

        Args:
            inputs: (B, C, H, W), normalised.
            data_samples: B data samples with ``dataset_name``, perhaps ``tasks``, and the labels
                that their tasks need.

        Returns:
            ``<data set>/<task>/<name>``: losses, weighted, and accuracies; only of what the batch
            has.

        Raises:
            DataError: For a data set that the model does not have, or labels that it cannot have.
        """
        inputs, samples, _ = self._in_order(inputs, data_samples)
        maps = self.extract_feat(inputs)
        losses: dict[str, Any] = {}
        zeros: list[Tensor] = []
        partial = False
        for task, decoder in self.decoders.items():
            found, idle = self._task_losses(task, decoder, maps, samples)
            partial |= not found.terms
            zeros += [parameter.float().sum() * 0 for parameter in idle]
            zeros += [] if found.zero is None else [found.zero]
            losses.update(self._weighted(task, found))
        if partial:  # a map may be the missing decoder's alone
            zeros += [x.float().sum() * 0 for x in maps]
        losses.update(self._uncertainty(losses))
        if zeros:
            self._attach(losses, torch.stack(zeros).sum())
        return losses

    def _task_losses(
        self, task: str, decoder: TaskDecoder, maps: Maps, samples: list[Any]
    ) -> tuple[TaskLosses, list[nn.Parameter]]:
        chosen = [number for number, one in enumerate(samples) if task in self._tasks_of(one)]
        part, theirs = self._selected(maps, samples, chosen)
        groups = groups_of(theirs)
        ran = bool(groups) or decoder.waits_for_ranks()
        found = decoder.loss(part, theirs, groups) if ran else TaskLosses()
        idle = decoder.idle_parameters([group.name for group in groups], bool(groups))
        return found, idle

    def _weighted(self, task: str, found: TaskLosses) -> dict[str, Any]:
        factor: Any = self.weights[task]
        if self.weighting is not None:
            factor = torch.exp(-self.weighting.log_vars[list(self.decoders).index(task)])
        return {
            f'{name}/{task}/{term}': scaled(value, factor) if 'loss' in term else value
            for name, terms in found.terms.items()
            for term, value in terms.items()
        }

    def _uncertainty(self, losses: Mapping[str, Any]) -> dict[str, Tensor]:
        """What learnt weights cost, for the tasks of the batch; 0 for the others."""
        if self.weighting is None:
            return {}
        log_vars = self.weighting.log_vars
        present = {key.split('/')[1] for key in losses}
        known = [float(task in present) for task in self.decoders]
        weights = {
            f'weight/{task}': torch.exp(-value.detach())
            for task, value in zip(self.decoders, log_vars, strict=True)
        }
        return {'loss_uncertainty': (log_vars * log_vars.new_tensor(known)).sum(), **weights}

    @staticmethod
    def _attach(losses: dict[str, Any], zero: Tensor) -> None:
        """Adds a 0 to one of the losses, so that it is in the graph but in no list."""
        for key, value in losses.items():
            if 'loss' in key:
                if isinstance(value, Tensor):
                    losses[key] = value + zero
                else:
                    losses[key] = [value[0] + zero, *value[1:]]
                return
        losses['loss_nothing_labelled'] = zero

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: Sequence[Any], rescale: bool = True
    ) -> list[Any]:
        """Predicts all that the model knows about the data set of each image.

        Args:
            inputs: (B, C, H, W), normalised.
            data_samples: B data samples with ``dataset_name``, ``img_shape``, ``ori_shape`` and
                ``scale_factor``.
            rescale: Whether predictions are for the original images, or for the inputs.

        Returns:
            The samples, with ``pred_sem_seg`` ((1, h, w) int64), ``pred_instances`` (upright boxes,
            and masks (N, h, w) bool) and ``pred_r_instances`` (rotated boxes), as the data set has
            them.

        Raises:
            DataError: For a data set that the model does not have.
        """
        inputs, samples, order = self._in_order(inputs, data_samples)
        maps = self.extract_feat(inputs)
        for task, decoder in self.decoders.items():
            chosen = [n for n, one in enumerate(samples) if task in self._label_set(one).tasks]
            part, theirs = self._selected(maps, samples, chosen)
            if theirs:
                decoder.predict(part, theirs, groups_of(theirs), rescale)
        back = sorted(range(len(order)), key=order.__getitem__)
        return [samples[number] for number in back]

    def random_samples(
        self, count: int, size: Sequence[int], generator: torch.Generator
    ) -> list[Any]:
        """Samples with random labels of all its data sets in turn, to time it without data.

        Args:
            count: Number of samples.
            size: Height and width of the images in pixels.
            generator: What draws.
        """
        return random_samples(list(self.label_sets.values()), count, size, generator)

    def _label_set(self, sample: Any) -> LabelSet:
        name = sample.get('dataset_name')
        if name is None and len(self.label_sets) == 1:
            name = next(iter(self.label_sets))
            sample.set_metainfo({'dataset_name': name})
        if name not in self.label_sets:
            raise DataError(
                f'its dataset_name is {name!r}, but the data sets of the model are '
                f'{", ".join(self.label_sets)}',
                path=sample.get('img_path'),
                hint='Add it to `datasets` of the model, or correct the name of the dataset',
            )
        return self.label_sets[name]

    def _tasks_of(self, sample: Any) -> tuple[str, ...]:
        """The kinds of label of a sample that the model learns from."""
        here = self._label_set(sample).tasks
        own = sample.get('tasks')
        return here if own is None else tuple(task for task in here if task in own)

    def _in_order(
        self, inputs: Tensor, samples: Sequence[Any]
    ) -> tuple[Tensor, list[Any], list[int]]:
        """Images and samples, one data set after the other, and their places in the batch."""
        places = [self._places[self._label_set(sample).name] for sample in samples]
        order = sorted(range(len(places)), key=places.__getitem__)
        if order == list(range(len(order))):
            return inputs, list(samples), order
        # Here, and not later: nothing is as small as the images.
        index = torch.tensor(order, device=inputs.device)
        return inputs[index], [samples[number] for number in order], order

    @staticmethod
    def _selected(maps: Maps, samples: list[Any], chosen: list[int]) -> tuple[Maps, list[Any]]:
        if len(chosen) == len(samples):
            return maps, samples
        first, count = (chosen[0], len(chosen)) if chosen else (0, 0)
        if chosen == list(range(first, first + count)):  # a view, where it can be one
            part = slice(first, first + count)
            return tuple(x[part] for x in maps), samples[part]
        index = torch.tensor(chosen, device=maps[0].device)
        return tuple(x[index] for x in maps), [samples[number] for number in chosen]


def groups_of(samples: Sequence[Any]) -> list[Group]:
    """The data sets of samples that are in order."""
    groups: list[Group] = []
    start = 0
    for name, members in groupby(samples, key=lambda sample: sample.dataset_name):
        stop = start + len(list(members))
        groups.append(Group(name, slice(start, stop)))
        start = stop
    return groups


def scaled(value: Any, factor: Any) -> Any:
    """A loss, or a list of losses, times a factor."""
    if isinstance(value, list | tuple):
        return [one * factor for one in value]
    return value * factor
