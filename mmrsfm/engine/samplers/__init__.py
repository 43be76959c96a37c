# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.samplers.addressed_indices import AddressedIndices
from mmrsfm.engine.samplers.epoch_sampler import EpochSampler
from mmrsfm.engine.samplers.multi_dataset_sampler import MultiDatasetSampler

__all__ = ['AddressedIndices', 'EpochSampler', 'MultiDatasetSampler']
