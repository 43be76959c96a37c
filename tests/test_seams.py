# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The small modules that everything stands on: registry, contract, randomness, errors, progress."""

import io
import pickle
import random

import mmengine.registry as roots
import numpy as np
import pytest
import torch

from mmrsfm import registry
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import (
    ConfigError,
    CorruptImageError,
    DataError,
    ImageNotFoundError,
    MissingDependencyError,
)
from mmrsfm.randomness import SampleAddress, derive_seed, seeded
from mmrsfm.utils.progress import duration, progress


class TestRegistry:
    def test_every_root_has_a_child(self):
        names = [name for name in dir(roots) if isinstance(getattr(roots, name), roots.Registry)]
        assert names
        for name in names:
            child = getattr(registry, name)
            assert child.scope == 'mmrsfm'
            assert getattr(roots, name).children['mmrsfm'] is child

    def test_finds_by_scope_from_the_root(self):
        from mmrsfm.models.backbones import CrossScaleViT

        assert roots.MODELS.get('mmrsfm.CrossScaleViT') is CrossScaleViT

    def test_locations_are_tried_in_order_and_only_as_far_as_needed(self, monkeypatch):
        imported = []
        child = registry.LazyRegistry('probe', roots.Registry('probe', scope='root'), ['a', 'b'])

        def fake_import(name):
            imported.append(name)
            child._module_dict[f'In{name.upper()}'] = int

        monkeypatch.setattr(registry.importlib, 'import_module', fake_import)
        assert child.get('mmrsfm.InA') is int
        assert imported == ['a']
        assert child.get('mmrsfm.InB') is int
        assert imported == ['a', 'b']

    def test_missing_task_library_is_named(self, monkeypatch):
        root = roots.Registry('probe', scope='root')
        root.register_module(name='Known', module=int)
        child = registry.LazyRegistry('probe', root, ['heavy'])

        def fake_import(name):
            raise ImportError('No module named mmdet', name='mmdet')

        monkeypatch.setattr(registry.importlib, 'import_module', fake_import)
        for ask in (child, root):
            with pytest.raises(MissingDependencyError, match='No module named mmdet'):
                ask.get('mmrsfm.Unknown')
        assert child.get('Known') is int  # as under default_scope='mmrsfm'
        assert root.get('Unknown') is None

    @pytest.mark.parametrize('package', ['brokenlibrary', 'mmrsfm'])
    def test_broken_library_is_passed_over_unless_it_is_ours(self, package, monkeypatch):
        child = registry.LazyRegistry('probe', roots.Registry('probe', scope='root'), ['heavy'])

        def fake_import(name):
            # As task libraries check the version of mmcv.
            exec("assert False, 'mmcv is too new'", {'__name__': f'{package}.sub'})

        monkeypatch.setattr(registry.importlib, 'import_module', fake_import)
        if package == 'mmrsfm':
            with pytest.raises(AssertionError):
                child.import_all()
            return
        child.import_all()
        with pytest.raises(MissingDependencyError, match='AssertionError: mmcv is too new'):
            child.get('mmrsfm.Unknown')

    def test_own_broken_module_is_never_hidden(self, monkeypatch):
        child = registry.LazyRegistry('probe', roots.Registry('probe', scope='root'), ['ours'])

        def fake_import(name):
            raise ImportError('cannot import name', name='mmrsfm.models')

        monkeypatch.setattr(registry.importlib, 'import_module', fake_import)
        with pytest.raises(ImportError, match='cannot import name'):
            child.get('mmrsfm.Unknown')


class TestContract:
    def test_round_trip(self):
        contract = ImageryContract(band_names=['B02', 'B03'], scale=1e-4, mean=[0.1, 0.2])
        assert ImageryContract.from_dict(contract.to_dict()) == contract
        assert contract.num_bands == 2
        assert 'std' not in contract.to_dict()

    def test_differences_only_where_both_sides_state_something(self):
        ours = ImageryContract(band_names=('B02',), scale=1e-4, gsd=10.0, licence='a')
        theirs = ImageryContract(band_names=('B03',), scale=0.0001, sensor='S2', licence='b')
        assert ours.differences(theirs) == {'band_names': (('B02',), ('B03',))}
        assert ours.differences(theirs, ignore=('band_names', 'licence')) == {}

    def test_offset(self):
        new = ImageryContract(scale=1e-4, offset=-0.1)
        old = ImageryContract(scale=1e-4, offset=0)
        assert new.differences(old) == {'offset': (-0.1, 0.0)}
        assert new.differences(ImageryContract(scale=1e-4)) == {}  # not stated
        assert old.to_dict() == {'scale': 1e-4, 'offset': 0.0}
        by_band = ImageryContract(scale=[1e-4, 1.0], offset=(-0.1, -0.1))
        assert (by_band.scale, by_band.offset, by_band.num_bands) == ((1e-4, 1.0), -0.1, 2)
        assert by_band.differences(new) == {'scale': ((1e-4, 1.0), 1e-4)}
        assert ImageryContract.from_dict(by_band.to_dict()) == by_band

    @pytest.mark.parametrize(
        ('fields', 'sentence'),
        [
            ({'band_names': ('a', 'b'), 'mean': (1.0,)}, 'one entry per band'),
            ({'band_names': ('a', 'a')}, 'occurs twice'),
            ({'band_names': 'B02'}, 'must be a list'),
            ({'mean': (1.0,), 'scale': (1.0, 2.0)}, 'one entry per band'),
            ({'offset': 'none'}, 'offset must be a number'),
            ({'scale': [1.0, None]}, 'scale must be a number'),
            ({'offset': float('nan')}, 'offset must be a number'),
            ({'offset': []}, 'offset must be a number'),
        ],
    )
    def test_contradictions(self, fields, sentence):
        with pytest.raises(ConfigError, match=sentence):
            ImageryContract(**fields)

    def test_unknown_field(self):
        with pytest.raises(ConfigError, match="'bandnames'"):
            ImageryContract.from_dict({'bandnames': ['a']})


class TestRandomness:
    def test_address_survives_pickling_and_is_an_index(self):
        address = pickle.loads(pickle.dumps(SampleAddress(7, epoch=3)))
        assert 'abcdefgh'[address] == 'h'
        assert (int(address), address.epoch) == (7, 3)

    def test_seed_is_stable_and_depends_on_each_part(self):
        # A literal: the same on every machine and in every later version.
        assert derive_seed(0, 0, 0) == derive_seed(0, 0, 0)
        seeds = {derive_seed(s, e, i) for s in range(4) for e in range(4) for i in range(4)}
        assert len(seeds) == 64
        assert all(0 <= seed < 2**63 for seed in seeds)

    def test_seeded_draws_repeat_and_the_state_comes_back(self):
        def draw():
            return random.random(), np.random.rand(), torch.rand(1).item()

        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = draw()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        with seeded(derive_seed('here')):
            first = draw()
        assert draw() == expected
        with seeded(derive_seed('here')):
            assert draw() == first
        with pytest.raises(ValueError, match='inside'), seeded(5):
            raise ValueError('inside')

    def test_state_comes_back_after_an_error(self):
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        with pytest.raises(ValueError), seeded(5):
            raise ValueError
        assert torch.equal(torch.rand(1), expected)


class TestErrors:
    @pytest.mark.parametrize('kind', [DataError, CorruptImageError, ImageNotFoundError])
    def test_message_and_pickling(self, kind):
        error = kind('is truncated', path='a.tif', band='B02', hint='Fetch it again')
        assert str(error) == 'a.tif: band B02: is truncated. Fetch it again'
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and str(again) == str(error) and again.band == 'B02'


class TestProgress:
    def test_yields_all_and_ends_with_the_total(self):
        stream = io.StringIO()
        assert list(progress(range(5), 'work', stream=stream)) == [0, 1, 2, 3, 4]
        assert stream.getvalue().splitlines()[-1].startswith('work: 5/5')

    @pytest.mark.parametrize(
        ('seconds', 'text'), [(3.4, '3 s'), (185, '3 min 05 s'), (7800, '2 h 10 min')]
    )
    def test_duration(self, seconds, text):
        assert duration(seconds) == text
