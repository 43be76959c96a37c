# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.classifiers.pair_classifier import PairClassifier

__all__ = ['PairClassifier']
