# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.hooks.checkpoint_hook import CheckpointHook
from mmrsfm.engine.hooks.pretrained_guard_hook import PretrainedGuardHook

__all__ = ['CheckpointHook', 'PretrainedGuardHook']
