# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.loops.epoch_loop import EpochTrainLoop
from mmrsfm.engine.loops.evaluation_loops import TestLoop, ValLoop
from mmrsfm.engine.loops.iter_loop import IterTrainLoop

__all__ = ['EpochTrainLoop', 'IterTrainLoop', 'TestLoop', 'ValLoop']
