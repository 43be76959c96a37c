# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A sampler of anchors and regions whose choice follows from the image, not from the process."""

from __future__ import annotations

from typing import Any

from mmdet.models.task_modules.samplers import RandomSampler
from mmengine.structures import InstanceData

from mmrsfm.randomness import derive_seed, seeded
from mmrsfm.registry import TASK_UTILS

_KEY = 'sampling_seed'


def with_seed(instances: InstanceData, seed: int | None, *purpose: str) -> InstanceData:
    """Lets :class:`SeededRandomSampler` draw from a seed for these instances.

    Args:
        instances: The true objects of an image.
        seed: The seed of the image; ``None``: from the global generator, as ever.
        *purpose: What is drawn: each purpose has draws of its own.

    Returns:
        The same instances.
    """
    if seed is not None:
        instances.set_metainfo({_KEY: derive_seed(int(seed), *purpose)})
    return instances


@TASK_UTILS.register_module()
class SeededRandomSampler(RandomSampler):
    """mmdet's RandomSampler, drawing from the seed of each image where it has one.

    The packing transform gives a sample ``sampling_seed``, which follows from the address of the
    sample (seed of the run, epoch, index). The chosen anchors and regions of an image are then the
    same whichever rank has it, and whichever images are beside it. Without a seed it is mmdet's.

    Args:
        *args: As of mmdet's RandomSampler.
        **kwargs: As of mmdet's RandomSampler.
    """

    def sample(
        self,
        assign_result: Any,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        **kwargs: Any,
    ) -> Any:
        """See :meth:`mmdet.models.task_modules.BaseSampler.sample`."""
        seed = gt_instances.metainfo.get(_KEY)
        if seed is None:
            return super().sample(assign_result, pred_instances, gt_instances, **kwargs)
        with seeded(seed):
            return super().sample(assign_result, pred_instances, gt_instances, **kwargs)
