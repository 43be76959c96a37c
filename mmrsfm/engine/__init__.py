# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.hooks import (
    BatchNormHook,
    CheckpointHook,
    ClassCountHook,
    PretrainedGuardHook,
    VisualizationHook,
)
from mmrsfm.engine.log_processor import LogProcessor
from mmrsfm.engine.loops import EpochTrainLoop, IterTrainLoop
from mmrsfm.engine.optimizers import (
    BF16OptimWrapper,
    InternImageLayerDecayOptimWrapperConstructor,
    MixMIMLayerDecayOptimWrapperConstructor,
    RVSALayerDecayOptimWrapperConstructor,
    SwinLayerDecayOptimWrapperConstructor,
)
from mmrsfm.engine.samplers import EpochSampler

__all__ = [
    'BF16OptimWrapper',
    'BatchNormHook',
    'CheckpointHook',
    'ClassCountHook',
    'EpochSampler',
    'EpochTrainLoop',
    'InternImageLayerDecayOptimWrapperConstructor',
    'IterTrainLoop',
    'LogProcessor',
    'MixMIMLayerDecayOptimWrapperConstructor',
    'PretrainedGuardHook',
    'RVSALayerDecayOptimWrapperConstructor',
    'SwinLayerDecayOptimWrapperConstructor',
    'VisualizationHook',
]
