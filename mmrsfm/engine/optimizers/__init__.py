# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.optimizers.autocast_wrapper import BF16OptimWrapper
from mmrsfm.engine.optimizers.conv_next_layer_decay import (
    ConvNeXtLayerDecayOptimWrapperConstructor,
)
from mmrsfm.engine.optimizers.intern_image_layer_decay import (
    InternImageLayerDecayOptimWrapperConstructor,
)
from mmrsfm.engine.optimizers.mixmim_layer_decay import MixMIMLayerDecayOptimWrapperConstructor
from mmrsfm.engine.optimizers.rvsa_layer_decay import RVSALayerDecayOptimWrapperConstructor
from mmrsfm.engine.optimizers.swin_layer_decay import SwinLayerDecayOptimWrapperConstructor

__all__ = [
    'BF16OptimWrapper',
    'ConvNeXtLayerDecayOptimWrapperConstructor',
    'InternImageLayerDecayOptimWrapperConstructor',
    'MixMIMLayerDecayOptimWrapperConstructor',
    'RVSALayerDecayOptimWrapperConstructor',
    'SwinLayerDecayOptimWrapperConstructor',
]
