# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What every parity test shares: finding fixtures, and comparing arrays with one tolerance."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

REPO = Path(__file__).resolve().parents[1]
PARITY_DIR = Path(os.environ.get('MMRSFM_PARITY_DIR', REPO.parent / 'shared' / 'parity'))


def parity_files(*patterns: str) -> list:
    """Parameters for ``pytest.mark.parametrize``: the fixtures that match, or one skipped entry."""
    found = sorted({path for pattern in patterns for path in PARITY_DIR.glob(pattern)})
    if found:
        return [pytest.param(path, id=path.stem) for path in found]
    reason = (
        f'no parity fixture {" or ".join(patterns)} in {PARITY_DIR}; '
        'set MMRSFM_PARITY_DIR to the folder that holds them'
    )
    return [pytest.param(None, id='absent', marks=pytest.mark.skip(reason=reason))]


class Fixture:
    """One ``.npz`` of the reference implementation; records which arrays were compared."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def json(self, name: str = 'kwargs_json') -> Any:
        self.used.add(name)
        stored = self.arrays[name]
        # Some fixtures hold the text, others its bytes.
        return json.loads(stored.tobytes() if stored.dtype == np.uint8 else str(stored))

    def tensor(self, name: str) -> torch.Tensor:
        self.used.add(name)
        # np.ascontiguousarray would make a vector of a scalar.
        return torch.from_numpy(np.array(self.arrays[name], order='C'))

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """Everything below ``prefix/``, keyed by the rest of the name."""
        return {
            name[len(prefix) + 1 :]: self.tensor(name)
            for name in self.arrays
            if name.startswith(prefix + '/')
        }

    @property
    def unused(self) -> list[str]:
        """Arrays that no test has looked at: a parity test asserts that there are none."""
        return sorted(set(self.arrays) - self.used)


def assert_parity(ours: Any, reference: Any, what: str, tolerance: float = 1e-5) -> None:
    """'To 1e-5' means max|a-b| <= 1e-5 * max(1, max|ref|), for each array."""
    ours = torch.as_tensor(ours).detach().cpu()
    reference = torch.as_tensor(reference).detach().cpu()
    assert ours.shape == reference.shape, f'{what}: {tuple(ours.shape)} != {tuple(reference.shape)}'
    if not reference.is_floating_point():
        assert torch.equal(ours.to(reference.dtype), reference), f'{what}: integers differ'
        return
    ours, reference = ours.double(), reference.double()
    assert torch.isfinite(ours).all() == torch.isfinite(reference).all(), f'{what}: not finite'
    if reference.numel() == 0:
        return
    error = (ours - reference).abs().max().item()
    bound = tolerance * max(1.0, reference.abs().max().item())
    assert error <= bound, f'{what}: max|difference| {error:.3g} > {bound:.3g}'
