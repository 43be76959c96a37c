# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Validation and test whose errors name the file, and whose draws have an address."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.dist import get_rank
from mmengine.runner import TestLoop as BaseTestLoop
from mmengine.runner import ValLoop as BaseValLoop
from torch.utils.data import DataLoader

from mmrsfm.registry import LOOPS


def addressed_dataloader(runner: Any, dataloader: DataLoader | dict) -> DataLoader | dict:
    """The config of a data loader with its dataset in an :class:`mmrsfm.datasets.AddressedDataset`.

    A file that cannot be read ends an evaluation, always: a metric of other samples would be
    another metric.

    Args:
        runner: Whose seed the draws of a random pipeline follow from.
        dataloader: A config; a data loader that is built is left as it is.
    """
    if isinstance(dataloader, DataLoader):
        return dataloader
    from mmrsfm.datasets.addressed import AddressedDataset

    ranked = runner._randomness_cfg.get('diff_rank_seed', False)
    cfg = deepcopy(dataloader)
    cfg['dataset'] = dict(
        type=AddressedDataset,
        dataset=cfg['dataset'],
        seed=runner.seed - (get_rank() if ranked else 0),
    )
    return cfg


@LOOPS.register_module()
class ValLoop(BaseValLoop):
    """MMEngine's validation loop, for data that may be damaged.

    A file that cannot be read is a :class:`~mmrsfm.errors.DataError` that names it, of whatever
    library the dataset is; so are a missing folder, a broken annotation file, no samples at all.
    What a random pipeline draws for a sample follows from (seed, index), as in training.

    Args:
        runner: The runner.
        dataloader: A data loader, or its config.
        evaluator: As of MMEngine's loop.
        fp16: As of MMEngine's loop.
    """

    def __init__(
        self, runner: Any, dataloader: DataLoader | dict, evaluator: Any, fp16: bool = False
    ) -> None:
        super().__init__(runner, addressed_dataloader(runner, dataloader), evaluator, fp16)


@LOOPS.register_module()
class TestLoop(BaseTestLoop):
    """MMEngine's test loop with what :class:`ValLoop` adds to the other one.

    Args:
        runner: The runner.
        dataloader: A data loader, or its config.
        evaluator: As of MMEngine's loop.
        fp16: As of MMEngine's loop.
    """

    __test__ = False  # not one of pytest's

    def __init__(
        self, runner: Any, dataloader: DataLoader | dict, evaluator: Any, fp16: bool = False
    ) -> None:
        super().__init__(runner, addressed_dataloader(runner, dataloader), evaluator, fp16)
