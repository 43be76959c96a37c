# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.hooks.checkpoint_hook import CheckpointHook

__all__ = ['CheckpointHook']
