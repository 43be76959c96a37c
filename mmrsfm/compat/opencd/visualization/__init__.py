# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of change maps under Open-CD's names. Needs mmseg."""

from mmrsfm.compat.opencd.visualization.cd_local_vis_backend import CDLocalVisBackend
from mmrsfm.compat.opencd.visualization.cd_local_visualizer import CDLocalVisualizer
from mmrsfm.compat.opencd.visualization.cd_visualization_hook import CDVisualizationHook

__all__ = ['CDLocalVisBackend', 'CDLocalVisualizer', 'CDVisualizationHook']
