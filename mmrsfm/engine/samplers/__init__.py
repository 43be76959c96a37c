# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.engine.samplers.addressed_indices import AddressedIndices
from mmrsfm.engine.samplers.epoch_sampler import EpochSampler
from mmrsfm.engine.samplers.multi_dataset_sampler import MultiDatasetSampler
from mmrsfm.engine.samplers.skipping_batch_sampler import SkippingBatchSampler

__all__ = ['AddressedIndices', 'EpochSampler', 'MultiDatasetSampler', 'SkippingBatchSampler']
