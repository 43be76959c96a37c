# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models import (
    backbones,
    classifiers,
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
    'classifiers',
    'data_preprocessors',
    'heads',
    'losses',
    'necks',
    'pretext',
    'registration',
    'translation',
]
