# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The last look before training: does the model have the classes of the dataset?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import HOOKS

# Of classification, segmentation and detection. Not mask and proposal heads: they may know one
# class, "object", for any dataset.
_HEADS = ('head', 'decode_head', 'auxiliary_head', 'bbox_head', 'roi_head.bbox_head')


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Compares the classes of the training set with those of the model, before the first step.

    Otherwise labels beyond the head's classes are found by the loss, on a GPU as a device-side
    assertion, and a head with too many classes not at all. Only what both sides state is compared:
    a dataset without ``metainfo['classes']`` and a model without a head are left alone, and so are
    binary heads with one output (``out_channels=1``) and datasets for panoptic segmentation, whose
    heads divide the classes.

    Where both have several sets of classes (:class:`mmrsfm.MTP` and the datasets of
    :class:`mmrsfm.datasets.MultiDataset`, or one of them), the names are compared: a part that the
    model does not know, and classes in another order, would be found by nobody else.

    Raises:
        ConfigError: With both numbers, and where in the config they come from.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Checks the model; on every rank."""
        metainfo = _metainfo(getattr(runner.train_dataloader, 'dataset', None))
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if getattr(model, 'label_sets', None):
            _check_sets(metainfo, model.label_sets)
            return
        classes = metainfo.get('classes')
        if (
            not isinstance(classes, Sequence)
            or isinstance(classes, str)
            or 'thing_classes' in metainfo
        ):
            return
        stated = list(_stated(model))
        wrong = [f'{key}={count}' for key, count in stated if count != len(classes)]
        if wrong:
            names = ', '.join(str(name) for name in classes[:8])
            more = ', ...' if len(classes) > 8 else ''
            raise ConfigError(
                f'the training set has {len(classes)} classes ({names}{more}), but the config says '
                f'{", ".join(wrong)}. Set num_classes={len(classes)} there, or the classes in '
                'train_dataloader.dataset.metainfo.'
            )


def _metainfo(dataset: Any) -> dict[str, Any]:
    """That of the dataset, or of the one that it wraps."""
    while dataset is not None:
        found = getattr(dataset, 'metainfo', None)
        if isinstance(found, dict):
            return found
        dataset = getattr(dataset, 'dataset', None)  # torch's Subset, and others
    return {}


def _check_sets(metainfo: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Compares datasets with the sets of classes of a model, by name.

    Args:
        metainfo: Of a ``MultiDataset``, or of a single dataset with a name.
        known: Name to what has ``classes`` and ``semantic_classes``.
    """
    parts = metainfo.get('datasets')
    if parts is None:
        name = metainfo.get('dataset_name')
        parts = {} if name is None else {name: metainfo}
    for name, meta in parts.items():
        if name not in known:
            raise ConfigError(
                f'the training set has a part {name!r}, but the model knows {list(known)}: add it '
                'to model.datasets, or leave it out of train_dataloader.dataset.datasets'
            )
        for key in ('classes', 'semantic_classes'):
            here, there = meta.get(key), getattr(known[name], key)
            if here is None or tuple(here) == tuple(there):
                continue
            # Of a model that is told their number, the names are made up.
            if len(here) == len(there) and 'class 0' in there[:2]:  # behind a background
                continue
            differing = next(
                (n for n, (a, b) in enumerate(zip(here, there, strict=False)) if a != b),
                min(len(here), len(there)),
            )
            raise ConfigError(
                f'the training set {name!r} has {len(here)} {key}, the model {len(there)}; they '
                f'differ from number {differing} on: {list(here)[differing : differing + 3]} and '
                f'{list(there)[differing : differing + 3]}. Make those of model.datasets the same'
            )


def _stated(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Keys of the config that say how many classes there are, and what they say."""
    for path in _HEADS:
        found: Any = model
        for name in path.split('.'):
            found = getattr(found, name, None)
        several = isinstance(found, nn.ModuleList)
        for number, head in enumerate(found if several else [found]):
            count = getattr(head, 'num_classes', None)
            if isinstance(count, int) and getattr(head, 'out_channels', None) != 1:
                yield f'model.{path}{f"[{number}]" if several else ""}.num_classes', count
    preprocessor = getattr(model, 'data_preprocessor', None)
    count = getattr(preprocessor, 'num_classes', None)
    if getattr(preprocessor, 'to_onehot', False) and isinstance(count, int):
        yield 'data_preprocessor.num_classes', count
