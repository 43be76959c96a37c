# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A part of a training set, for studies of how few labels are enough."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from mmrsfm.errors import ConfigError
from mmrsfm.registry import DATASETS


def choose_fraction(names: Sequence[str], fraction: float, seed: int = 0) -> list[int]:
    """Positions of a fraction of the names, in ascending order.

    The names are put into the order of the SHA-256 of seed and name, and the first ``round(fraction
    * N)``, at least one, are taken. So a subset depends on the names alone, not on their order or
    on the machine; subsets of one seed lie in each other, so that a study compares like with like;
    and subsets of two seeds are independent.

    Args:
        names: Of all samples; equal ones are told apart by their order.
        fraction: In (0, 1].
        seed: Which subset.

    Raises:
        ConfigError: For another fraction.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f'a label fraction is in (0, 1], got {fraction}')
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        text = f'{seed}\n{name}\n{seen[name]}'
        seen[name] += 1
        keys.append(hashlib.sha256(text.encode('utf-8', 'surrogateescape')).digest())
    order = sorted(range(len(names)), key=keys.__getitem__)
    return sorted(order[: max(1, round(fraction * len(names)))])


@DATASETS.register_module()
class LabelFraction(Dataset):
    """Keeps a fraction of the samples of a dataset, see :func:`choose_fraction`.

    They are chosen by name: the ``sample_name`` of a sample, or that of its (first) image file.

    Args:
        dataset: A dataset of MMEngine's kind, or its config. It keeps the chosen samples only.
        fraction: Share of the samples, in (0, 1].
        seed: Which subset; seed of the training run and of the subset are two things.

    Attributes:
        dataset: The dataset, with fewer samples. All other attributes are its own.

    Raises:
        ConfigError: For another fraction, or a dataset without names.
    """

    def __init__(
        self, dataset: Dataset | Mapping[str, Any], fraction: float = 1.0, seed: int = 0
    ) -> None:
        built: Any = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
        built.full_init()
        if fraction != 1:
            names = [_name(built.get_data_info(number)) for number in range(len(built))]
            built.get_subset_(choose_fraction(names, fraction, seed))
        self.dataset = built
        self.fraction = fraction
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset' or name.startswith('__'):  # not set yet: while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _name(info: Mapping[str, Any]) -> str:
    name = info.get('sample_name')
    if name is not None:
        return str(name)
    path = info.get('img_path')
    path = path[0] if isinstance(path, (list, tuple)) else path
    if not path:
        raise ConfigError('LabelFraction: the samples have no sample_name and no img_path')
    return f'{Path(path).name}{info.get("window", "")}'
