# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.hooks.batch_norm_hook import BatchNormHook
from mmrsfm.engine.hooks.channels_last_hook import ChannelsLastHook
from mmrsfm.engine.hooks.checkpoint_hook import CheckpointHook
from mmrsfm.engine.hooks.class_count_hook import ClassCountHook
from mmrsfm.engine.hooks.encoder_checkpoint_hook import EncoderCheckpointHook
from mmrsfm.engine.hooks.freeze_hook import FreezeHook
from mmrsfm.engine.hooks.iter_timer_hook import IterTimerHook
from mmrsfm.engine.hooks.non_finite_hook import NonFiniteHook
from mmrsfm.engine.hooks.preemption_hook import PreemptionHook
from mmrsfm.engine.hooks.pretrained_guard_hook import PretrainedGuardHook
from mmrsfm.engine.hooks.training_picture_hook import TrainingPictureHook
from mmrsfm.engine.hooks.visualization_hook import VisualizationHook

__all__ = [
    'BatchNormHook',
    'ChannelsLastHook',
    'CheckpointHook',
    'ClassCountHook',
    'EncoderCheckpointHook',
    'FreezeHook',
    'IterTimerHook',
    'NonFiniteHook',
    'PreemptionHook',
    'PretrainedGuardHook',
    'TrainingPictureHook',
    'VisualizationHook',
]
