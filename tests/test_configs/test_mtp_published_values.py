# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The 83 configs of MTP against the published ones, key by key."""

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmrsfm.registry import MODELS
from tests.parity import parity_files
from tests.test_configs.published_mtp import (
    ABSENT,
    FOLDERS,
    READ,
    ROWS,
    STARTS,
    published_backbone,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'mtp'
FACTS = parity_files('mtp_ft_config_facts.json')


def config_of(dataset: str, start: str) -> Path:
    (found,) = (CONFIGS / FOLDERS[dataset]).glob(f'{STARTS[start]}*.py')
    return found


def flatten(value: Any, prefix: str = '') -> dict[str, Any]:
    """Dotted keys; lists of plain values are values."""
    if isinstance(value, dict) and value:
        parts = [(f'{prefix}.{key}' if prefix else key, one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(one, dict) for one in value):
        parts = [(f'{prefix}[{number}]', one) for number, one in enumerate(value)]
    else:
        return {prefix: list(value) if isinstance(value, (list, tuple)) else value}
    return {name: leaf for key, one in parts for name, leaf in flatten(one, key).items()}


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def is_same(published: Any, ours: Any) -> bool:
    return bool(published == ours) and (published is None) == (ours is None)


def backbone_differences(published: dict, ours: dict, scope: str) -> list[str]:
    """Compares the backbone by what its class makes of the arguments."""
    wanted = published_backbone(published, scope)
    cls = MODELS.get(wanted['type'])
    arch = cls.arch_zoo[ours.pop('arch')]
    default = {
        name: one.default for name, one in inspect.signature(cls.__init__).parameters.items()
    }
    found = []
    for name, value in wanted.pop('arch').items():
        if plain(arch[name]) != value:
            found.append(f'arch {name}: {arch[name]} instead of {value}')
    for name, value in wanted.pop('defaults').items():
        by_arch = 4.0 if name == 'mlp_ratio' else ABSENT
        if ours.pop(name, default.get(name)) != value and by_arch != value:
            found.append(f'{name} is not {value}')
    for name, value in wanted.items():
        got = ours.pop(name, default.get(name, ABSENT))
        if not is_same(value, plain(got)):
            found.append(f'{name}: {got} instead of {value}')
    return found + [f'{name}={value} is not published' for name, value in ours.items()]


@cache
def differences(path: Path) -> dict[tuple[str, str], tuple[Any, Any]]:
    """(dataset/initialisation, key) -> (published, ours), of all keys that are not the same."""
    facts = json.loads(path.read_text())
    found: dict[tuple[str, str], tuple[Any, Any]] = {}
    for dataset in FOLDERS:
        for start, own in facts[dataset]['by_backbone'].items():
            where = f'{dataset}/{start}'
            published = {**facts[dataset]['common'], **own}
            cfg = Config.fromfile(config_of(dataset, start), import_custom_modules=False)
            ours = flatten(cfg.to_dict())
            ours = {
                key: value
                for key, value in ours.items()
                if key in published or key.split('.')[0].split('[')[0] in READ
            }
            prefix = 'model.backbone.'
            parts = [
                {key.removeprefix(prefix): side.pop(key) for key in list(side)
                 if key.startswith(prefix)}
                for side in (published, ours)
            ]  # fmt: skip
            for text in backbone_differences(*parts, cfg.default_scope):
                found[where, prefix + text] = ('see the key', 'see the key')
            for key in {*published, *ours}:
                left, right = published.get(key, ABSENT), ours.get(key, ABSENT)
                if not is_same(left, right):
                    found[where, key] = (left, right)
    return found


@pytest.mark.parametrize('path', FACTS)
def test_parity_every_published_value_is_ours_or_a_listed_difference(path):
    unlisted = [
        f'{where} {key}: published {left!r}, ours {right!r}'
        for (where, key), (left, right) in differences(path).items()
        if not any(row.fits(where, key, left, right) for row in ROWS)
    ]
    assert not unlisted, '\n'.join([f'{len(unlisted)} unlisted:', *unlisted[:30]])


@pytest.mark.parametrize('path', FACTS)
def test_parity_every_listed_difference_occurs(path):
    found = differences(path)
    idle = [
        row
        for row in ROWS
        if not any(row.fits(where, key, *values) for (where, key), values in found.items())
    ]
    assert not idle, idle
    assert all(row.reason for row in ROWS)


@pytest.mark.parametrize('path', FACTS)
def test_parity_all_83_are_there_and_no_other(path):
    facts = json.loads(path.read_text())
    pairs = [(dataset, start) for dataset in FOLDERS for start in facts[dataset]['by_backbone']]
    found = {config_of(*pair) for pair in pairs}
    assert len(found) == len(pairs) == 83
    assert found == {
        file for folder in FOLDERS.values() for file in (CONFIGS / folder).glob('*.py')
    }


def test_no_config_is_longer_than_15_lines():
    for folder in FOLDERS.values():
        for file in (CONFIGS / folder).glob('*.py'):
            assert len(file.read_text().splitlines()) <= 15, file
