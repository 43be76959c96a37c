# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Evaluation protocols and metrics."""

from mmrsfm.evaluation.knn_loop import KNNLoop
from mmrsfm.evaluation.nearest_neighbors import nearest_neighbors, vote

__all__ = ['KNNLoop', 'nearest_neighbors', 'vote']
