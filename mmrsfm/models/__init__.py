# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models import (
    backbones,
    data_preprocessors,
    heads,
    losses,
    necks,
    pretext,
    registration,
    translation,
)

__all__ = [
    'backbones',
    'data_preprocessors',
    'heads',
    'losses',
    'necks',
    'pretext',
    'registration',
    'translation',
]
