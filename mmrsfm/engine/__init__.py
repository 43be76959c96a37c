# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.hooks import (
    BatchNormHook,
    ChannelsLastHook,
    CheckpointHook,
    ClassCountHook,
    EncoderCheckpointHook,
    FreezeHook,
    IterTimerHook,
    NonFiniteHook,
    PreemptionHook,
    PretrainedGuardHook,
    TrainingPictureHook,
    VisualizationHook,
)
from mmrsfm.engine.log_processor import LogProcessor
from mmrsfm.engine.loops import EpochTrainLoop, IterTrainLoop, TestLoop, ValLoop
from mmrsfm.engine.optimizers import (
    BF16OptimWrapper,
    ConvNeXtLayerDecayOptimWrapperConstructor,
    InternImageLayerDecayOptimWrapperConstructor,
    MixMIMLayerDecayOptimWrapperConstructor,
    RVSALayerDecayOptimWrapperConstructor,
    SwinLayerDecayOptimWrapperConstructor,
)
from mmrsfm.engine.samplers import EpochSampler, MultiDatasetSampler
from mmrsfm.engine.sharding import FullyShardedDataParallel

__all__ = [
    'BF16OptimWrapper',
    'BatchNormHook',
    'ChannelsLastHook',
    'CheckpointHook',
    'ClassCountHook',
    'ConvNeXtLayerDecayOptimWrapperConstructor',
    'EncoderCheckpointHook',
    'EpochSampler',
    'EpochTrainLoop',
    'FreezeHook',
    'FullyShardedDataParallel',
    'InternImageLayerDecayOptimWrapperConstructor',
    'IterTimerHook',
    'IterTrainLoop',
    'LogProcessor',
    'MixMIMLayerDecayOptimWrapperConstructor',
    'MultiDatasetSampler',
    'NonFiniteHook',
    'PreemptionHook',
    'PretrainedGuardHook',
    'RVSALayerDecayOptimWrapperConstructor',
    'SwinLayerDecayOptimWrapperConstructor',
    'TestLoop',
    'TrainingPictureHook',
    'ValLoop',
    'VisualizationHook',
]
