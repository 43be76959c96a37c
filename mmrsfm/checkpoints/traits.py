# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a checkpoint must say about a model beside its weights, in ``meta``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

CONTRACT_KEY = 'mmrsfm_contract'
TRAITS_KEY = 'mmrsfm_traits'
SOURCE_KEY = 'mmrsfm_source'


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Entries for the ``meta`` of a checkpoint of this model; plain values only.

    Args:
        model: A task model or a pretraining model.

    Returns:
        ``mmrsfm_contract``: the contract of its data preprocessor, where it has one.
        ``mmrsfm_traits``: what the shapes of the weights don't tell: ``norm_style`` (weights of
        post-norm blocks fit pre-norm ones, and are wrong there), ``grid``, rows and columns of
        the position table, ``modalities``, names and numbers of channels in their order, and
        ``label_sets``, names of the classes of each data set of a multi-task pretraining.
    """
    meta: dict[str, Any] = {}
    contract = getattr(getattr(model, 'data_preprocessor', None), 'contract', None)
    if contract is not None:
        meta[CONTRACT_KEY] = contract.to_dict()
    backbone = getattr(model, 'backbone', model)
    traits: dict[str, Any] = {}
    style = getattr(backbone, 'norm_style', None)
    if isinstance(style, str):
        traits['norm_style'] = style
    grid = getattr(backbone, 'patch_resolution', None)
    if grid is not None:
        traits['grid'] = [int(size) for size in grid]
    modalities = getattr(model, 'modalities', None) or getattr(backbone, 'modalities', None)
    if isinstance(modalities, Mapping):
        traits['modalities'] = {str(name): int(count) for name, count in modalities.items()}
    label_sets = getattr(model, 'label_sets', None)
    if isinstance(label_sets, Mapping):
        traits['label_sets'] = {
            str(name): {
                'classes': list(one.classes),
                'semantic_classes': list(one.semantic_classes),
            }
            for name, one in label_sets.items()
        }
    meta[TRAITS_KEY] = traits
    return meta
