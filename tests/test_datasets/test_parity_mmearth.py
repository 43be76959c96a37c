# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Items of MMEarth, as the published code makes them, with both of its sets of no-data rules."""

import h5py
import numpy as np
import pytest
import torch

from mmrsfm.datasets import MMEarth
from tests.parity import Fixture, assert_parity, parity_files

FIXTURES = parity_files('mmearth_*/reference_items*.npz')


def load(path, rules, **options):
    (root,) = (folder for folder in path.parent.glob('data_*') if folder.is_dir())
    pipeline = [
        dict(type='mmrsfm.LoadMMEarth', **options),
        dict(type='mmrsfm.NormalizeMMEarth', rules=rules),
        dict(
            type='mmrsfm.PackInputs', algorithm_keys=('targets',), meta_keys=('tile_id', 's2_type')
        ),
    ]
    return MMEarth(data_root=str(root), pipeline=pipeline)


def compare(ours, reference, what):
    """Missing numbers are missing in both; what is whole classes is the same class."""
    if reference.ndim == 1 and not reference.is_floating_point():
        # One-hot, unless the class is not known.
        reference = reference.argmax() if (reference == 1).any() else torch.tensor(-1)
    elif ours.ndim == 2:
        reference = reference[0]
    ours = ours[..., : reference.shape[-2], : reference.shape[-1]] if ours.ndim > 1 else ours
    assert ours.dtype == reference.dtype, what
    if reference.is_floating_point():
        # Radar that is missing is -inf in a published item, or NaN.
        assert torch.equal(torch.isfinite(ours), torch.isfinite(reference)), what
        ours, reference = (torch.nan_to_num(one, 0, 0, 0) for one in (ours, reference))
    assert_parity(ours, reference, what, 1e-6)


@pytest.mark.parametrize('path', FIXTURES)
def test_parity_mmearth_items(path):
    fixture = Fixture(path)
    groups = sorted({tuple(name.split('/')[:2]) for name in fixture.arrays} - {('head', 'rgb')})
    for rules, index in groups:
        if index == 'rgb':
            continue
        item = load(path, rules)[int(index)]
        sample = item['data_samples']
        for name in _names(fixture, rules, index):
            if name == 'id':
                assert sample.tile_id == str(fixture.arrays[f'{rules}/{index}/id'])
                fixture.used.add(f'{rules}/{index}/id')
                continue
            compare(
                sample.targets[name], fixture.tensor(f'{rules}/{index}/{name}'),
                f'{rules}/{index}/{name}',
            )  # fmt: skip
        assert torch.isfinite(item['inputs']).all()
    for rules in ('head', 'legacy2024'):
        bands = dict(sentinel2=['B2', 'B3', 'B4'])
        dataset = load(path, rules, inputs=bands, targets=bands)
        for index in sorted({name.split('/')[2] for name in _rgb(fixture, rules)}):
            item = dataset[int(index)]
            assert item['data_samples'].band_names == ('B02', 'B03', 'B04')
            for name in [one for one in _rgb(fixture, rules) if one.split('/')[2] == index]:
                compare(item['data_samples'].targets['sentinel2'], fixture.tensor(name), name)
    assert fixture.unused == []


def _names(fixture, rules, index):
    prefix = f'{rules}/{index}/'
    return [name[len(prefix) :] for name in fixture.arrays if name.startswith(prefix)]


def _rgb(fixture, rules):
    return [name for name in fixture.arrays if name.startswith(f'{rules}/rgb/')]


@pytest.mark.parametrize('path', FIXTURES)
def test_corrected_rules_differ_where_the_facts_say(path):
    """What the corrected rules change against both published sets, and nothing else.

    That is: where a stored number has another meaning. Not every fixture has each of them.
    """
    datasets = {rules: load(path, rules) for rules in ('corrected', 'head', 'legacy2024')}
    changed = set()
    for index in range(len(datasets['head'])):
        items = {rules: one[index]['data_samples'].targets for rules, one in datasets.items()}
        for name, ours in items['corrected'].items():
            for rules in ('head', 'legacy2024'):
                same = np.array_equal(
                    ours.numpy(), items[rules][name].numpy(), equal_nan=ours.is_floating_point()
                )
                if not same:
                    changed.add((rules, name))
    dataset = datasets['corrected']
    first = dataset.get_data_info(0)
    rows = sorted(dataset.get_data_info(index)['row'] for index in range(len(dataset)))
    with h5py.File(first['img_path']) as file:
        has = {
            'sentinel2': (np.delete(file['sentinel2'][rows], 10, 1) == 0).any(),
            'aster': (file['aster'][rows] == -32768).any(),
            'canopy_height_eth': (file['canopy_height_eth'][rows] == 127).any(),
        }
        cover = file['esa_worldcover'][rows]
    expected = {('legacy2024', name) for name, found in has.items() if found}
    expected |= {('head', name) for name in ('aster', 'canopy_height_eth') if has[name]}
    expected |= {('head', 'esa_worldcover')} if (cover == 10).any() else set()
    expected |= {('legacy2024', 'esa_worldcover')} if (cover == 0).any() else set()
    assert changed == expected
    if path.parent.name == 'mmearth_mini':
        assert len(expected) == 7  # it has all of them
