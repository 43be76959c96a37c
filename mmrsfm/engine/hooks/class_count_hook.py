# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The last look before training: does the model have the classes of the dataset?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    Raises:
        ConfigError: With both numbers, and where in the config they come from.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Checks the model; on every rank."""
        metainfo = _metainfo(getattr(runner.train_dataloader, 'dataset', None))
        classes = metainfo.get('classes')
        if (
            not isinstance(classes, Sequence)
            or isinstance(classes, str)
            or 'thing_classes' in metainfo
        ):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
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
