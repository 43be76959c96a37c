# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a load did, as an object and as a few lines of text."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmrsfm.checkpoints.adaptation import Adaptation
from mmrsfm.contract import ImageryContract

_ATTRIBUTE = '_mmrsfm_load_report'


@dataclass
class LoadReport:
    """What happened to each entry of the checkpoint and of the module.

    Attributes:
        source: The file.
        layout: Name of its layout.
        steps: What was unwrapped on the way to the weights.
        matched: Entries of the module that hold the checkpoint's numbers, resized and adapted ones
            included.
        resized: Of these, the position tables that were interpolated, with what was done.
        adapted: The stem that was fitted to other bands, with what was done.
        missing: Parameters and buffers of the module that kept their initial values, and why.
        unexpected: Entries of the checkpoint that found no place.
        dropped: Entries that were left aside by design, such as a decoder.
        notes: Anything else that the user should know.
        contract: The imagery that the checkpoint was trained on, where it says so.
        target: The imagery that the config stated for the load, where it did.
        adaptation: What the config allowed to differ.
        fingerprints: Checksum of each loaded entry, to verify later that it is still there.
    """

    source: str
    layout: str
    steps: list[str] = field(default_factory=list)
    matched: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    contract: ImageryContract | None = None
    target: ImageryContract | None = None
    adaptation: Adaptation = field(default_factory=Adaptation)
    fingerprints: dict[str, int] = field(default_factory=dict, repr=False)

    def summary(self) -> str:
        """A few lines for the log: everything that was not simply copied is named."""
        opened = f', {" ".join(self.steps)}' if self.steps else ''
        lines = [
            f'Loaded {self.source} (layout {self.layout}{opened}): {len(self.matched)} entries '
            f'matched, {len(self.resized)} resized, {len(self.adapted)} adapted, '
            f'{len(self.missing)} missing, {len(self.unexpected)} unexpected, '
            f'{len(self.dropped)} dropped by design'
        ]
        for title, details in (('resized', self.resized), ('adapted', self.adapted)):
            lines += [f'  {title}: {name}: {what}' for name, what in details.items()]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.missing.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f'  missing ({why}): {compact(names)}' for why, names in reasons.items()]
        if self.unexpected:
            lines.append(f'  unexpected: {compact(self.unexpected)}')
        if self.dropped:
            parts = Counter(name.split('.', 1)[0] for name in self.dropped)
            shown = ', '.join(f'{part} ({count})' for part, count in parts.items())
            lines.append(f'  dropped: {shown}')
        if self.contract is not None:
            stated = ', '.join(f'{k}={v}' for k, v in self.contract.to_dict().items())
            lines.append(f'  trained on: {stated}')
        lines += [f'  note: {note}' for note in self.notes]
        return '\n'.join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file; the fingerprints are left out."""
        values = asdict(self)
        values.pop('fingerprints')
        for name in ('contract', 'target'):
            contract = getattr(self, name)
            values[name] = None if contract is None else contract.to_dict()
        return values

    def changed(self, state: Mapping[str, Tensor]) -> list[str]:
        """Names of the loaded entries that ``state`` lacks, or holds with other numbers."""
        return [
            name
            for name, value in self.fingerprints.items()
            if name not in state or fingerprint(state[name]) != value
        ]


def fingerprint(tensor: Tensor) -> int:
    """CRC-32 of the bytes of a tensor, on whatever device and of whatever type."""
    data = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(data.view(torch.uint8).numpy().data) if data.numel() else 0


def compact(names: Iterable[str], limit: int = 12) -> str:
    """Names with their numbers folded: ``layers.{0-11}.ln1.weight`` instead of twelve lines."""
    groups: dict[str, list[int]] = {}
    for name in names:
        found = re.search(r'(?<=\.)\d+(?=\.)', name)
        key = name if found is None else f'{name[: found.start()]}{{}}{name[found.end() :]}'
        groups.setdefault(key, []).extend([] if found is None else [int(found[0])])
    shown = [
        key.replace('{}', _ranges(sorted(set(numbers))), 1) if numbers else key
        for key, numbers in groups.items()
    ]
    rest = len(shown) - limit
    return ', '.join(shown[:limit]) + (f', and {rest} more' if rest > 0 else '')


def _ranges(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f'{{{numbers[0]}-{numbers[-1]}}}'
    return '{' + ','.join(map(str, numbers)) + '}'


def attach_report(module: nn.Module, report: LoadReport) -> None:
    """Keeps a report on the module that was loaded; those of its parts are out of date then."""
    for child in module.modules():
        vars(child).pop(_ATTRIBUTE, None)
    setattr(module, _ATTRIBUTE, report)


def report_of(module: nn.Module) -> LoadReport | None:
    """The report of the last load into exactly this module; ``None`` where there was none."""
    return getattr(module, _ATTRIBUTE, None)
