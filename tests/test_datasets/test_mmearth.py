# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MMEarth, from files to samples: splits, products, what is missing, crops, workers, packing."""

import itertools
import json
import os
import pickle
import shutil

import h5py
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from data_converters.pack_mmearth import main, pack_mmearth
from mmrsfm.datasets import AddressedDataset, MMEarth
from mmrsfm.datasets import mmearth_files as files
from mmrsfm.datasets.mmearth_layers import LAYERS
from mmrsfm.datasets.packed_tiles import PackedTiles
from mmrsfm.datasets.transforms import LoadMMEarth, NormalizeMMEarth
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DatasetNotFoundError,
    ImageSizeError,
)
from mmrsfm.models.data_preprocessors import MultiBandDataPreprocessor
from tests.formats.mmearth import BANDS, make_mmearth

PACK = dict(
    type='mmrsfm.PackInputs', algorithm_keys=('targets',), meta_keys=('tile_id', 's2_type', 'flip')
)


def pipeline(*between, rules='corrected', **options):
    return [
        dict(type='mmrsfm.LoadMMEarth', **options), *between,
        dict(type='mmrsfm.NormalizeMMEarth', rules=rules), PACK,
    ]  # fmt: skip


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_mmearth(tmp_path_factory.mktemp('mmearth') / 'data_1M_v001_64')


def by_row(root, number, **options):
    """The tile that the generator drew as this one."""
    return MMEarth(str(root), split=None, pipeline=pipeline(**options))[number]


def stored(root, layer, row):
    with h5py.File(root / f'{root.name}.h5') as file:
        return file[layer][row]


def statistics(root, key):
    row = json.loads((root / f'{root.name}_band_stats.json').read_text())[key]
    return [np.array(row[name])[:, None, None] for name in ('mean', 'std')]


class TestSamples:
    def test_order_and_products(self, root):
        dataset = MMEarth(str(root), pipeline=pipeline())
        order = json.loads((root / f'{root.name}_splits.json').read_text())['train']
        assert [info['row'] for info in map(dataset.get_data_info, range(len(dataset)))] == order
        for number, row in enumerate(order):
            info = dataset.get_data_info(number)
            assert info['tile_id'] == f'tile_{row:07d}'
            assert info['s2_type'] == ('l1c', 'l2a')[row % 2]
            assert info['sensor'] == ('Sentinel-2 L1C', 'Sentinel-2 L2A')[row % 2]
        subset = dataset.get_subset([2, 0])
        assert [subset.get_data_info(n)['row'] for n in range(2)] == [order[2], order[0]]
        assert MMEarth(str(root), indices=2, pipeline=[]).get_data_info(-1)['row'] == order[1]

    @pytest.mark.parametrize('row', [3, 4])
    def test_each_product_has_its_statistics(self, root, row):
        item = by_row(root, row)
        level = ('l1c', 'l2a')[row % 2]
        mean, std = statistics(root, f'sentinel2_{level}')
        keep = [BANDS.index(band) for band in BANDS if band != 'B10']
        expected = ((stored(root, 'sentinel2', row) - mean) / std)[keep]
        np.testing.assert_allclose(item['inputs'], expected, rtol=1e-5, atol=1e-5)
        names = item['data_samples'].band_names
        assert names[6:9] == ('B07', 'B8A', 'B08') and len(names) == 12
        assert item['data_samples'].s2_type == level

    def test_targets_have_the_agreed_forms(self, root):
        item = by_row(root, 3)
        targets = item['data_samples'].targets
        assert list(targets) == list(LAYERS)
        shapes = {name: (value.dtype, tuple(value.shape)) for name, value in targets.items()}
        maps = {'sentinel2': 12, 'sentinel1': 8, 'aster': 2, 'canopy_height_eth': 2}
        vectors = {'era5': 12, 'lat': 2, 'lon': 2, 'month': 2}
        for name, channels in maps.items():
            assert shapes[name] == (torch.float32, (channels, 64, 64))
        for name, channels in vectors.items():
            assert shapes[name] == (torch.float32, (channels,))
        for name in ('dynamic_world', 'esa_worldcover'):
            assert shapes[name] == (torch.int64, (64, 64))
        for name in ('biome', 'eco_region'):
            assert shapes[name] == (torch.int64, ())
        info = json.loads((root / f'{root.name}_tile_info.json').read_text())['tile_0000003']
        assert (targets['biome'], targets['eco_region']) == (info['biome'], info['eco_region'])
        raw = stored(root, 'esa_worldcover', 3)[0]
        table = {10: 0, 40: 3, 50: 4}
        assert np.array_equal(targets['esa_worldcover'], np.vectorize(table.get)(raw))
        assert np.array_equal(targets['dynamic_world'], stored(root, 'dynamic_world', 3)[0] - 1)

    def test_what_is_missing(self, root):
        first, second, third = (by_row(root, row) for row in range(3))
        corner = np.s_[..., :16, :16]
        one = first['data_samples']
        assert (first['inputs'][corner] == 0).all()
        assert not one.valid_mask[corner].any() and one.valid_mask[:, 16:].all()
        assert one.targets['sentinel2'][corner].isnan().all()
        assert one.targets['sentinel1'][4:].isnan().all()
        assert one.targets['sentinel1'][:2].isfinite().all()
        assert one.targets['aster'].isnan().all()
        assert (one.targets['esa_worldcover'][corner] == -1).all()
        two = second['data_samples'].targets
        assert 'valid_mask' not in second['data_samples']
        assert two['canopy_height_eth'].isnan().all()
        assert two['era5'].isnan().nonzero().flatten().tolist() == [4, 5, 6, 7]
        for name in ('dynamic_world', 'esa_worldcover'):
            assert (two[name][corner] == -1).all()
        assert third['data_samples'].targets['sentinel1'].isnan().all()

    def test_published_rules(self, root):
        mean, std = statistics(root, 'sentinel2_l1c')
        old = by_row(root, 0, rules='legacy2024')
        assert 'valid_mask' not in old['data_samples']
        np.testing.assert_allclose(old['inputs'][0, 0, 0], -mean[0] / std[0], rtol=1e-5)
        assert old['data_samples'].targets['aster'].isfinite().all()
        second = by_row(root, 1, rules='legacy2024')['data_samples'].targets
        assert (second['esa_worldcover'][:16, :16] == 0).all()
        assert (second['dynamic_world'][:16, :16] == -1).all()
        head = by_row(root, 0, rules='head')
        assert head['inputs'].isfinite().all()
        assert head['data_samples'].targets['sentinel2'][:, 0, 0].isnan().all()
        trees = stored(root, 'esa_worldcover', 3)[0] == 10
        assert trees.any()
        new = by_row(root, 3, rules='head')['data_samples'].targets
        assert (new['esa_worldcover'][trees] == -1).all()

    def test_the_input_may_be_changed_in_place(self, root):
        item = by_row(root, 3)
        before = item['data_samples'].targets['sentinel2'].clone()
        item['inputs'].mul_(0)
        assert torch.equal(item['data_samples'].targets['sentinel2'], before)

    def test_a_class_that_is_not_given(self, root, tmp_path):
        folder = shutil.copytree(root, tmp_path / root.name)
        with h5py.File(folder / f'{root.name}.h5', 'a') as file:
            file['biome'][3] = 255
            file['eco_region'][3] = 0
        targets = by_row(folder, 3)['data_samples'].targets
        assert targets['biome'] == targets['eco_region'] == -1


class TestLayers:
    def test_any_subset(self, root):
        bands = dict(sentinel2=['B2', 'B3', 'B4'], sentinel1=['asc_VV', 'asc_VH'])
        item = by_row(root, 3, inputs=bands, targets=dict(aster=['slope'], era5=None, biome=None))
        assert item['inputs'].shape == (5, 64, 64)
        assert item['data_samples'].band_names == ('B02', 'B03', 'B04', 'asc_VV', 'asc_VH')
        assert list(item['data_samples'].targets) == ['aster', 'era5', 'biome']
        assert item['data_samples'].targets['aster'].shape == (1, 64, 64)
        whole = by_row(root, 3)
        assert torch.equal(item['inputs'][:3], whole['inputs'][1:4])

    def test_ones_own(self, root, tmp_path):
        folder = shutil.copytree(root, tmp_path / root.name)
        rng = np.random.default_rng(0)
        lights = rng.uniform(0, 9, (5, 1, 64, 64)).astype(np.float32)
        lights[:, :, :3] = -1
        soil = rng.integers(-3, 40, (5, 1, 64, 64)).astype(np.int16)
        with h5py.File(folder / f'{root.name}.h5', 'a') as file:
            file['night_lights'], file['soil'] = lights, soil
        own = dict(
            night_lights=dict(
                kind='map', bands=['radiance'], missing=[-1], statistics=dict(mean=[4.0], std=[2.0])
            ),
            soil=dict(kind='class_map', bands=1, classes={-2: 2, 3: 0, 7: 1}),
        )
        item = by_row(folder, 2, targets=list(own), modalities=own)['data_samples'].targets
        expected = np.where(lights[2] == -1, np.nan, (lights[2] - 4) / 2)
        np.testing.assert_allclose(item['night_lights'], expected, rtol=1e-5)
        known = {-2: 2, 3: 0, 7: 1}
        assert (item['soil'] == 2).any()
        assert np.array_equal(item['soil'], np.vectorize(lambda v: known.get(v, -1))(soil[2, 0]))
        files.close_files()
        with h5py.File(folder / f'{root.name}.h5', 'a') as file:  # as scene_to_mmearth.py stores it
            del file['soil']
            file['soil'] = np.where(soil > 10, np.nan, soil).astype(np.float32)
        again = by_row(folder, 2, targets=list(own), modalities=own)['data_samples'].targets
        assert torch.equal(again['soil'], item['soil'])
        del own['night_lights']['statistics']
        with pytest.raises(BandMismatchError, match='no statistics of night_lights'):
            by_row(folder, 2, targets=list(own), modalities=own)
        own['night_lights']['normalise'] = False
        plain = by_row(folder, 2, targets=list(own), modalities=own)['data_samples'].targets
        assert np.nanmax(plain['night_lights']) == lights[2].max()

    def test_wrong_choices(self, root):
        for options, words in (
            (dict(targets=['snow']), 'unknown names'),
            (dict(targets='sentinel2'), 'list of names'),
            (dict(inputs=['biome']), 'maps of numbers'),
            (dict(targets=dict(biome=['1'])), 'has classes'),
            (dict(modalities=dict(snow=dict(kind='map'))), 'give kind'),
            (dict(modalities=dict(snow=dict(kind='class_map', bands=1))), 'classes, from'),
            (dict(modalities=dict(aster=dict(knid='map'))), 'unknown options'),
        ):
            with pytest.raises(ConfigError, match=words):
                LoadMMEarth(**options)
        with pytest.raises(BandMismatchError, match=r'B13.*no such band'):
            LoadMMEarth(inputs=dict(sentinel2=['B13']))
        with pytest.raises(ConfigError, match='rules are one of'):
            NormalizeMMEarth('latest')
        with pytest.raises(ConfigError, match='comes after'):
            NormalizeMMEarth()({})
        absent = by_row(root, 1, inputs=dict(sentinel2=['B10']), targets=['biome'])
        assert not absent['data_samples'].valid_mask.any()
        with pytest.raises(BandMismatchError, match=r'h5: band B10: has data, but its statistics'):
            by_row(root, 1, inputs=dict(sentinel2=['B10']), rules='legacy2024')
        with pytest.raises(ImageSizeError, match='sentinel1'):
            by_row(root, 1, modalities=dict(sentinel1=dict(bands=2)))
        assert 'B02' in repr(LoadMMEarth()) and 'corrected' in repr(NormalizeMMEarth())


def test_crops_and_flips_keep_layers_aligned(root):
    """Every layer of the moved sample is the same part of the whole one."""
    moves = [
        dict(type='mmrsfm.RandomCrop', size=24),
        dict(type='mmrsfm.RandomFlip', prob=1.0, direction=['horizontal', 'vertical', 'diagonal']),
        dict(type='mmrsfm.RandomRot90'),
    ]
    dataset = AddressedDataset(MMEarth(str(root), split=None, pipeline=pipeline(*moves)), seed=1)
    for row in range(5):
        whole = by_row(root, row)
        reference = torch.nan_to_num(whole['data_samples'].targets['sentinel2'], -9)
        item = dataset[row]
        moved = torch.nan_to_num(item['data_samples'].targets['sentinel2'], -9)
        found = []
        for turn, flip in itertools.product(range(4), (False, True)):
            upright = _turn(moved, turn, flip)
            same = (reference == upright[:, -1:, -1:]).all(0)  # where its last pixel may be from
            for bottom, right in same.nonzero().tolist():
                top, left = bottom - 23, right - 23
                if torch.equal(reference[:, top : bottom + 1, left : right + 1], upright):
                    found.append((top, left, turn, flip))
        assert len(found) == 1
        top, left, turn, flip = found[0]
        for name, layer in LAYERS.items():
            target = item['data_samples'].targets[name]
            source = whole['data_samples'].targets[name]
            if layer.is_map:
                target = _turn(target, turn, flip)
                source = source[..., top : top + 24, left : left + 24]
            np.testing.assert_array_equal(target, source, name)


def _turn(image, turn, flip):
    image = torch.rot90(image, turn, (-2, -1))
    return image.flip(-1) if flip else image


@pytest.mark.parametrize('rules', ['corrected', 'legacy2024'])
def test_what_is_padded_is_missing(root, rules):
    pad = dict(type='mmrsfm.Pad', size=(64, 80))
    whole = by_row(root, 4, rules=rules)
    item = MMEarth(str(root), split=None, pipeline=pipeline(pad, rules=rules))[4]
    assert (item['inputs'][..., 64:] == 0).all()
    assert torch.equal(item['inputs'][..., :64], whole['inputs'])
    assert not item['data_samples'].valid_mask[..., 64:].any()
    for name, target in item['data_samples'].targets.items():
        if LAYERS[name].is_map:
            beside, target = target[..., 64:], target[..., :64]
            assert (beside.isnan() if target.is_floating_point() else beside == -1).all(), name
        np.testing.assert_array_equal(target, whole['data_samples'].targets[name], name)


def test_through_the_data_preprocessor(root):
    dataset = MMEarth(str(root), split=None, pipeline=pipeline())
    batch = default_collate([dataset[0], dataset[3]])
    names = dataset[0]['data_samples'].band_names
    ready = MultiBandDataPreprocessor(band_names=names)(batch)
    assert ready['inputs'].shape == (2, 12, 64, 64) and ready['inputs'].isfinite().all()
    assert not ready['data_samples'][0].valid_mask[0, 0, 0]
    moved = ready['data_samples'][0].to('cpu').targets
    assert moved['biome'].dtype == torch.int64 and type(moved).__name__ == 'TargetDict'


class TestWorkers:
    def test_the_file_is_closed_while_a_process_forks(self, root):
        dataset = MMEarth(str(root), split=None, pipeline=pipeline())
        assert not files._open._files
        reference = [dataset[number]['inputs'] for number in range(5)]
        assert files._open._files
        loader = DataLoader(dataset, 1, num_workers=3, collate_fn=lambda items: items[0])
        for _ in range(2):
            for item, expected in zip(loader, reference, strict=True):
                assert torch.equal(item['inputs'], expected)
        # This process reads on.
        assert torch.equal(dataset[0]['inputs'], reference[0])
        child = os.fork()
        if not child:
            os._exit(0 if not files._open._files else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_the_data_set_is_small_and_travels(self, root):
        dataset = MMEarth(str(root), pipeline=pipeline())
        again = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(again[1]['inputs'], dataset[1]['inputs'])
        assert dataset.data_bytes.nbytes == 8 * len(dataset)


class TestPacked:
    @pytest.fixture(scope='class')
    def packed(self, root):
        path = root / 'train.tiles'
        dataset = MMEarth(str(root), pipeline=[])
        assert pack_mmearth(dataset, path, quiet=True) == 5
        return path

    def test_items_are_those_of_the_hdf5_file(self, root, packed):
        one = MMEarth(str(root), pipeline=pipeline())
        other = MMEarth(str(root), packed='train.tiles', pipeline=pipeline())
        assert len(one) == len(other) == 5
        for number in range(5):
            a, b = one[number], other[number]
            assert torch.equal(a['inputs'], b['inputs'])
            for key in ('tile_id', 's2_type', 'sensor'):
                assert getattr(a['data_samples'], key) == getattr(b['data_samples'], key)
            for name, value in a['data_samples'].targets.items():
                np.testing.assert_array_equal(value, b['data_samples'].targets[name], name)

    def test_damage_and_layers_that_were_left_out(self, root, packed, tmp_path):
        content = bytearray(packed.read_bytes())
        content[4096 + 500] ^= 1
        (tmp_path / 'a.tiles').write_bytes(content)
        broken = MMEarth(str(tmp_path), packed='a.tiles', pipeline=pipeline())
        with pytest.raises(CorruptImageError, match=r'tile 0 .* is damaged'):
            broken[0]
        assert broken[1]['inputs'].isfinite().all()
        unchecked = MMEarth(str(tmp_path), packed='a.tiles', verify=False, pipeline=pipeline())
        assert unchecked[0]['inputs'].shape == (12, 64, 64)
        source = MMEarth(str(root), pipeline=[])
        pack_mmearth(source, tmp_path / 'b.tiles', ['sentinel2', 'biome'], quiet=True)
        assert PackedTiles(tmp_path / 'b.tiles').shape == (1, 1, 13 * 64 * 64 * 2 + 14)
        few = MMEarth(str(tmp_path), packed='b.tiles', pipeline=pipeline(targets=['biome']))
        assert few[0]['data_samples'].targets['biome'] >= 0
        with pytest.raises(BandMismatchError, match='aster: was packed without'):
            MMEarth(str(tmp_path), packed='b.tiles', pipeline=pipeline(targets=['aster']))[0]
        folder = shutil.copytree(root, tmp_path / root.name)
        with h5py.File(folder / f'{root.name}.h5', 'a') as file:
            file['mine'] = np.full((5, 1, 64, 64), 3, 'float32')
        pack_mmearth(MMEarth(str(folder), pipeline=[]), folder / 'own.tiles', quiet=True)
        fields = [name for name, *_ in PackedTiles(folder / 'own.tiles').metadata['fields']]
        assert fields == [*LAYERS, 'mine']
        with pytest.raises(BandMismatchError, match='snow'):
            pack_mmearth(source, tmp_path / 'c.tiles', ['snow'], quiet=True)

    def test_the_command(self, root, tmp_path, monkeypatch, capsys):
        target = tmp_path / 'all.tiles'
        monkeypatch.setattr('sys.argv', ['x', str(root), str(target), '--split', 'all'])
        main()
        assert '5 tiles' in capsys.readouterr().out
        assert MMEarth(packed=str(target), pipeline=[]).get_data_info(4)['tile_id'].endswith('4')
        monkeypatch.setattr('sys.argv', ['x', str(tmp_path / 'none'), str(target)])
        with pytest.raises(SystemExit, match='no such file'):
            main()


class TestDamage:
    def test_files_that_are_missing_or_do_not_fit(self, root, tmp_path):
        with pytest.raises(DatasetNotFoundError, match=r'x\.h5.*<name>_splits'):
            MMEarth(str(tmp_path / 'x'))
        folder = shutil.copytree(root, tmp_path / 'renamed')
        with pytest.raises(DatasetNotFoundError, match=r"\['data_1M_v001_64\.h5'\].*name="):
            MMEarth(str(folder))
        options = dict(data_root=str(folder), name=root.name)
        assert len(MMEarth(pipeline=[], **options)) == 5
        with pytest.raises(DatasetNotFoundError, match=r"split 'val' has no tiles.*'train': 5"):
            MMEarth(split='val', **options)
        with pytest.raises(DatasetNotFoundError, match="no split 'all'"):
            MMEarth(split='all', **options)
        splits = folder / f'{root.name}_splits.json'
        for row in ('5', '-1', '2.5', '"tile"'):
            splits.write_text(f'{{"train": [0, {row}]}}')
            named = row.replace('"', "'")
            with pytest.raises(CorruptImageError, match=f'names row {named}, but .* has 5 tiles'):
                MMEarth(**options)
        splits.write_text('{"train"')
        with pytest.raises(CorruptImageError, match='is no JSON'):
            MMEarth(**options)
        splits.unlink()
        with pytest.raises(DatasetNotFoundError, match=r'_splits\.json: no such file'):
            MMEarth(**options)
        (folder / f'{root.name}.h5').write_bytes(b'\x89PNG')
        with pytest.raises(CorruptImageError, match='opened as HDF5'):
            MMEarth(**options)
        with pytest.raises(DatasetNotFoundError, match='no such file of packed tiles'):
            MMEarth(packed='x.tiles', **options)

    def test_a_tile_that_cannot_be_read(self, root, tmp_path):
        folder = shutil.copytree(root, tmp_path / root.name)
        path = folder / f'{root.name}.h5'
        with h5py.File(path) as file:
            place = file['sentinel2'].id.get_chunk_info(2)
        content = bytearray(path.read_bytes())
        content[place.byte_offset + 10 : place.byte_offset + 200] = bytes(190)
        path.write_bytes(content)
        with pytest.raises(CorruptImageError, match='sentinel2: tile 2 cannot be read'):
            by_row(folder, 2)
        assert by_row(folder, 3)['inputs'].isfinite().all()
        files.close_files()
        with h5py.File(path, 'a') as file:
            del file['aster']
        with pytest.raises(BandMismatchError, match='aster: has no such layer'):
            by_row(folder, 3)

    def test_files_that_end_early_or_hold_other_shapes(self, root, tmp_path):
        folder = shutil.copytree(root, tmp_path / root.name)
        path = folder / f'{root.name}.h5'
        content = path.read_bytes()
        for share in (0, 0.1, 0.5, 0.99):
            path.write_bytes(content[: int(share * len(content))])
            with pytest.raises(CorruptImageError, match='opened as HDF5'):
                by_row(folder, 3)
        path.write_bytes(content)
        with h5py.File(path, 'a') as file:
            del file['sentinel2'], file['lat']
            file['sentinel2'] = np.zeros((5, 13), 'uint16')
            file['lat'] = np.zeros((2, 2), 'float32')
        with pytest.raises(ImageSizeError, match='sentinel2: tile 3 has shape'):
            by_row(folder, 3, targets=['biome'])
        with pytest.raises(CorruptImageError, match='lat: tile 3 cannot be read'):
            by_row(folder, 3, inputs=['sentinel1'], targets=['lat'])
        # Another file in its place is seen, although this process has read from the first.
        path.unlink()
        make_mmearth(folder, count=2, size=16)
        assert len(MMEarth(str(folder), split=None)) == 2
        assert by_row(folder, 1)['inputs'].shape == (12, 16, 16)

    def test_a_copy_beside_it_is_of_no_matter(self, root, tmp_path):
        folder = shutil.copytree(root, tmp_path / root.name)
        path = folder / f'{root.name}.h5'
        with h5py.File(path) as file, h5py.File(folder / f'{root.name}_chunked.h5', 'w') as out:
            for name, layer in file.items():
                kind = dict(dtype=h5py.string_dtype()) if name == 'metadata' else {}
                table = [one.decode() for one in layer['tile_id']] if kind else layer[:]
                # Several tiles a chunk, tiles without one, names of any length: read, too.
                out.create_dataset(name, data=table, chunks=None if kind else (2, *layer.shape[1:]),
                                   **kind)  # fmt: skip
        assert torch.equal(by_row(folder, 3)['inputs'], by_row(root, 3)['inputs'])
        for suffix in ('splits', 'tile_info', 'band_stats'):
            shutil.copy(folder / f'{root.name}_{suffix}.json',
                        folder / f'{root.name}_chunked_{suffix}.json')  # fmt: skip
        dataset = MMEarth(str(folder), split=None, name=f'{root.name}_chunked', pipeline=pipeline())
        for row in range(5):
            assert torch.equal(dataset[row]['inputs'], by_row(root, row)['inputs'])
            assert dataset[row]['data_samples'].tile_id == f'tile_{row:07d}'

    def test_statistics_that_do_not_fit(self, root, tmp_path):
        folder = shutil.copytree(root, tmp_path / root.name)
        table = folder / f'{root.name}_band_stats.json'
        content = json.loads(table.read_text())
        content['sentinel2_l2a']['mean'] = content['sentinel2_l2a']['mean'][:12]
        table.write_text(json.dumps(content))
        with pytest.raises(BandMismatchError, match=r'h5: .*sentinel2_l2a have 12 numbers as mean'):
            by_row(folder, 3)
        table.unlink()
        with pytest.raises(DatasetNotFoundError, match=r'_band_stats\.json: no such file'):
            by_row(folder, 3)

    def test_older_files_name_no_products(self, tmp_path):
        folder = make_mmearth(tmp_path / 'old', size=16, types=False)
        dataset = MMEarth(str(folder), split=None, pipeline=[])
        assert [dataset.get_data_info(n)['s2_type'] for n in range(3)] == ['l1c', 'l2a', 'l1c']
        table = folder / 'old_tile_info.json'
        information = json.loads(table.read_text())
        del information['tile_0000002']
        table.write_text(json.dumps(information))
        with pytest.raises(CorruptImageError, match='nothing of tile'):
            MMEarth(str(folder))
        with h5py.File(folder / 'old.h5', 'a') as file:
            del file['metadata']
        with pytest.raises(CorruptImageError, match='no table of its tiles'):
            MMEarth(str(folder))


@pytest.mark.parametrize(
    ('step', 'before'),
    [
        (dict(type='mmrsfm.Resize', size=16), True),
        (dict(type='mmrsfm.RandomResizedCrop', size=16), True),
        (dict(type='mmrsfm.RandomHomography'), True),
        (dict(type='mmrsfm.Resize', size=16, interpolation='nearest'), False),
        (dict(type='mmrsfm.RandomCrop', size=16), False),
    ],
)
def test_what_would_mix_or_misalign_is_refused(root, step, before):
    steps = pipeline(*([step] if before else []))
    if not before:
        steps.insert(len(steps) - 1, step)
    with pytest.raises(ConfigError, match='NormalizeMMEarth'):
        MMEarth(str(root), split=None, pipeline=steps)[0]


def test_the_nearest_numbers_may_be_taken(root):
    step = dict(type='mmrsfm.Resize', size=16, interpolation='nearest')
    item = MMEarth(str(root), split=None, pipeline=pipeline(step))[0]
    assert item['inputs'].shape[1:] == (16, 16)
