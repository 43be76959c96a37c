# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of data and of predictions."""

from mmrsfm.visualization.height_visualizer import HeightVisualizer
from mmrsfm.visualization.mlflow_backend import MLflowVisBackend
from mmrsfm.visualization.reconstruction_visualizer import ReconstructionVisualizer
from mmrsfm.visualization.registration_visualizer import RegistrationVisualizer
from mmrsfm.visualization.tensorboard_backend import TensorboardVisBackend
from mmrsfm.visualization.translation_visualizer import TranslationVisualizer

__all__ = [
    'HeightVisualizer',
    'MLflowVisBackend',
    'ReconstructionVisualizer',
    'RegistrationVisualizer',
    'TensorboardVisBackend',
    'TranslationVisualizer',
]
