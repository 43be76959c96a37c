# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.optimizers.autocast_wrapper import BF16OptimWrapper

__all__ = ['BF16OptimWrapper']
