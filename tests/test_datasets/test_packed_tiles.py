# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packed tiles, from folders to samples: values, labels, checksums, damage; and label fractions."""

import pickle
import zlib

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset

from data_converters.pack_tiles import main, pack_tiles
from mmrsfm.datasets import (
    BigEarthNetV2,
    LabelFraction,
    PackedTileDataset,
    PairedModalityDataset,
    TileDataset,
)
from mmrsfm.datasets.label_fraction import choose_fraction
from mmrsfm.datasets.packed_tiles import PackedTiles, PackedTileWriter
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DatasetNotFoundError,
    ImageSizeError,
)
from tests.formats.bigearthnet import make_bigearthnet_v2
from tests.test_datasets.imagery import write_tif

LOAD = [dict(type='mmrsfm.LoadMultiBandImage'), dict(type='mmrsfm.PackInputs')]


@pytest.fixture(scope='module')
def v2(tmp_path_factory):
    return make_bigearthnet_v2(tmp_path_factory.mktemp('v2'), count=3, optical=False)


def folder_form(root, **options):
    return BigEarthNetV2(data_root=str(root), ann_file='metadata.csv', pipeline=LOAD, **options)


@pytest.fixture(scope='module')
def packed(v2, tmp_path_factory):
    path = tmp_path_factory.mktemp('packed') / 'all.tiles'
    count, bad = pack_tiles(folder_form(v2), path, workers=2, quiet=True)
    assert (count, bad) == (9, [])
    return path


def test_samples_are_those_of_the_folders(v2, packed):
    dataset = PackedTileDataset(str(packed), pipeline=LOAD)
    source = folder_form(v2)
    assert dataset.metainfo['classes'] == source.metainfo['classes']
    for number in range(len(source)):
        one, other = dataset[number], source[number]
        np.testing.assert_array_equal(one['inputs'], other['inputs'])
        assert one['data_samples'].gt_label.tolist() == other['data_samples'].gt_label.tolist()
        assert one['data_samples'].band_names == ('VH', 'VV')
        for key in ('sample_name', 'country', 'season'):
            assert dataset.get_data_info(number)[key] == source.get_data_info(number)[key]
    assert dataset.get_cat_ids(0) == source.get_cat_ids(0)


def test_bands_by_name_and_filters(packed):
    pipeline = [dict(type='mmrsfm.LoadMultiBandImage', bands=['VV', 'VH']), LOAD[1]]
    swapped = PackedTileDataset(str(packed), pipeline=pipeline)[0]['inputs']
    straight = PackedTileDataset(str(packed), pipeline=LOAD)[0]['inputs']
    np.testing.assert_array_equal(swapped, straight.flip(0))
    found = PackedTileDataset(str(packed), where=dict(country=['Finland'], season='winter'))
    assert {one['country'] for one in found} == {'Finland'}
    with pytest.raises(ConfigError, match="'continent' is not known"):
        PackedTileDataset(str(packed), where=dict(continent='Europe'))
    with pytest.raises(DatasetNotFoundError, match='none of its 9 tiles'):
        PackedTileDataset(str(packed), where=dict(country='Chad'))
    with pytest.raises(ConfigError, match='its classes are'):
        PackedTileDataset(str(packed), classes=['a', 'b'])
    with pytest.raises(BandMismatchError, match='HH'):
        pipeline = [dict(type='mmrsfm.LoadMultiBandImage', bands=['HH'])]
        PackedTileDataset(str(packed), pipeline=pipeline)[0]


def test_nan_stays_invalid_and_scales_apply_once(tmp_path):
    image = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    image[1, 0, 0] = np.nan
    write_tif(tmp_path / 'images' / 'a.tif', image, names=['X', 'Y'])
    pipeline = [dict(type='mmrsfm.LoadMultiBandImage', scale=0.5, offset=1.0), LOAD[1]]
    options = dict(data_root=str(tmp_path), data_prefix=dict(img_path='images'))
    source = TileDataset(pipeline=pipeline, **options)
    item = TileDataset(pipeline=pipeline, **options)[0]
    pack_tiles(source, tmp_path / 'a.tiles', quiet=True)
    again = PackedTileDataset('a.tiles', data_root=str(tmp_path), pipeline=pipeline)[0]
    np.testing.assert_array_equal(again['inputs'], item['inputs'])
    np.testing.assert_array_equal(again['data_samples'].valid_mask, item['data_samples'].valid_mask)
    assert again['data_samples'].scale == 0.5
    assert np.isnan(PackedTiles(tmp_path / 'a.tiles').read(0)[1, 0, 0])


def test_damage_is_named(packed, tmp_path):
    content = bytearray(packed.read_bytes())
    tiles = PackedTiles(packed)
    bytes_of_tile = 2 * 120 * 120 * 4
    content[4096 + 3 * bytes_of_tile + 17] ^= 1
    (tmp_path / 'a.tiles').write_bytes(content)
    broken = PackedTileDataset(str(tmp_path / 'a.tiles'), pipeline=LOAD)
    np.testing.assert_array_equal(PackedTiles(packed).read(2), tiles.read(2))
    assert broken[2]['inputs'].shape == (2, 120, 120)
    with pytest.raises(CorruptImageError, match=r'tile 3 .* is damaged'):
        broken[3]
    unchecked = PackedTileDataset(str(tmp_path / 'a.tiles'), pipeline=LOAD, verify=False)
    assert unchecked[3]['inputs'].shape == (2, 120, 120)
    for name, data, words in (
        ('b.tiles', content[:-100], 'truncated'),
        ('c.tiles', b'PNG' + bytes(9000), 'is no file of packed tiles'),
        ('d.tiles', content[:-200] + b'x' + content[-199:], 'the index is damaged'),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorruptImageError, match=words):
            PackedTiles(tmp_path / name)
    with pytest.raises(DatasetNotFoundError, match='no such file of packed tiles'):
        PackedTileDataset(str(tmp_path / 'e.tiles'))


def test_each_process_compares_a_checksum_once(packed, monkeypatch):
    compared = []
    tiles = PackedTiles(packed)
    real = zlib.crc32
    monkeypatch.setattr(zlib, 'crc32', lambda data: compared.append(1) or real(data))
    for number in (0, 1, 0, 1, 0):
        tiles.read(number)
    assert len(compared) == 2
    tiles.read(2, verify=False)
    assert len(compared) == 2


def test_readers_travel_to_workers_without_their_map(packed):
    tiles = PackedTiles(packed)
    first = tiles.read(0)
    text = pickle.dumps(tiles)
    assert len(text) < 20_000
    np.testing.assert_array_equal(pickle.loads(text).read(0), first)
    assert first.flags.writeable


def test_the_writer_leaves_no_part_of_a_file(tmp_path):
    path = tmp_path / 'a.tiles'
    with (
        pytest.raises(ImageSizeError, match=r'\(1, 4, 5\).*\(1, 4, 4\)'),
        PackedTileWriter(path) as writer,
    ):
        writer.write(np.zeros((1, 4, 4), 'uint8'), 'one')
        writer.write(np.zeros((1, 4, 5), 'uint8'), 'two')
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DatasetNotFoundError, match='no tiles'), PackedTileWriter(path):
        pass
    with (
        pytest.raises(ConfigError, match='does not hold values'),
        PackedTileWriter(path, dtype='uint8') as writer,
    ):
        writer.write(np.full((1, 4, 4), 0.5, 'float32'), 'one')
    with pytest.raises(ConfigError, match='one of'):
        PackedTileWriter(path, dtype='complex64')
    with PackedTileWriter(path, dtype='int16') as writer:
        writer.write(np.full((1, 4, 4), 3, 'float32'), 'one')
    assert PackedTiles(path).read(0).dtype == np.int16
    assert PackedTiles(path).index['labels'] == [None]
    with pytest.raises(Exception, match='one has no labels'):
        PackedTileDataset(str(path)).get_cat_ids(0)


def test_bad_images_end_the_work_or_are_left_out(v2, tmp_path):
    source = folder_form(v2)
    broken = source.get_data_info(1)['img_path'][0]
    real = source.get_data_info

    def info(number):
        found = real(number)
        return {**found, 'img_path': [broken + '.gone', broken]} if number == 1 else found

    source.get_data_info = info
    with pytest.raises(Exception, match='gone'):
        pack_tiles(source, tmp_path / 'a.tiles', quiet=True)
    assert list(tmp_path.iterdir()) == []
    count, bad = pack_tiles(source, tmp_path / 'a.tiles', skip_bad=True, size=32, quiet=True)
    assert (count, len(bad)) == (8, 1)
    assert PackedTiles(tmp_path / 'a.tiles').shape == (2, 32, 32)


def test_command(v2, tmp_path, monkeypatch, capsys):
    config = tmp_path / 'config.py'
    config.write_text(
        f"val_dataloader = dict(dataset=dict(type='mmrsfm.BigEarthNetV2', data_root={str(v2)!r}, "
        f"ann_file='metadata.csv', split='val', pipeline={LOAD!r}))"
    )
    target = tmp_path / 'val.tiles'
    arguments = ['pack_tiles.py', str(config), str(target), '--loader', 'val_dataloader']
    monkeypatch.setattr('sys.argv', arguments)
    main()
    assert '3 tiles' in capsys.readouterr().out
    assert len(PackedTileDataset(str(target))) == 3


class TestLabelFraction:
    def test_subsets_lie_in_each_other_and_depend_on_names_alone(self):
        names = [f'patch_{number}' for number in range(1000)]
        eighth, quarter, whole = (set(choose_fraction(names, part)) for part in (0.125, 0.25, 1))
        assert (len(eighth), len(quarter), len(whole)) == (125, 250, 1000)
        assert eighth < quarter < whole
        turned = choose_fraction(names[::-1], 0.125)
        assert {999 - at for at in turned} == eighth
        other = set(choose_fraction(names, 0.125, seed=1))
        assert len(eighth & other) < 50
        assert len(choose_fraction(['a'] * 8, 0.25)) == 2
        for wrong in (0, -1, 1.5):
            with pytest.raises(ConfigError, match='label fraction'):
                choose_fraction(names, wrong)

    def test_wraps_a_dataset(self, v2):
        source = folder_form(v2)
        names = [source.get_data_info(number)['sample_name'] for number in range(len(source))]
        config = dict(
            type='mmrsfm.BigEarthNetV2', data_root=str(v2), ann_file='metadata.csv', pipeline=LOAD
        )
        part = LabelFraction(config, fraction=1 / 3, seed=2)
        assert len(part) == 3
        chosen = [names[at] for at in choose_fraction(names, 1 / 3, 2)]
        assert [part.get_data_info(number)['sample_name'] for number in range(3)] == chosen
        assert part[0]['inputs'].shape == (2, 120, 120)
        assert part.metainfo['classes'] == source.metainfo['classes']
        assert len(pickle.loads(pickle.dumps(part))) == 3


def test_labels_of_other_datasets(tmp_path, v2):
    class Numbered(BigEarthNetV2):
        def get_data_info(self, idx):
            return {**super().get_data_info(idx), 'gt_label': np.int64(idx)}

    source = Numbered(data_root=str(v2), ann_file='metadata.csv', pipeline=LOAD)
    pack_tiles(source, tmp_path / 'a.tiles', quiet=True)
    assert PackedTiles(tmp_path / 'a.tiles').index['labels'][:3] == [[0], [1], [2]]
    with pytest.raises(ConfigError, match='must begin with'):
        pack_tiles(ConcatDataset([source]), tmp_path / 'b.tiles', quiet=True)


@pytest.mark.parametrize('dtype', ['uint16', None])
def test_pairs_of_modalities(tmp_path, dtype):
    """As MaRS-16M: 8 bits and 16 bits, and a sensor; with floats, pixels without data."""
    rng = np.random.default_rng(0)
    for number in range(3):
        rgb = rng.integers(0, 255, (3, 16, 20)).astype(np.uint8)
        sar = rng.integers(0, 60000, (1, 16, 20)).astype(dtype or np.float32)
        if dtype is None:
            sar[:, :4] = np.nan
        write_tif(tmp_path / 'rgb' / f'{number}.tif', rgb)
        write_tif(tmp_path / 'sar' / f'{number}.tif', sar)
    modalities = dict(rgb=dict(channels=3, names=['R', 'G', 'B']), sar=1)
    load = dict(type='mmrsfm.LoadModalities', modalities=modalities)
    rest = [dict(type='mmrsfm.PackInputs')]
    pairs = PairedModalityDataset(data_root=str(tmp_path), sensor='capella', pipeline=[load, *rest])
    expected = [pairs[number] for number in range(3)]
    count, bad = pack_tiles(pairs, tmp_path / 'p.tiles', dtype=dtype, quiet=True)
    assert (count, bad) == (3, [])
    loading = dict(type='mmrsfm.LoadMultiBandImage', to_float32=dtype is None)
    packed = PackedTileDataset(str(tmp_path / 'p.tiles'), pipeline=[loading, *rest])
    assert packed.get_data_info(0)['modalities'] == {'rgb': 3, 'sar': 1}
    for number, one in enumerate(expected):
        got = packed[number]
        assert str(got['inputs'].dtype) == f'torch.{dtype or "float32"}'
        valid = one['data_samples'].get('valid_mask')
        assert (valid is None) == (dtype is not None)
        if valid is not None:
            assert torch.equal(got['data_samples'].valid_mask, valid)
        assert torch.equal(got['inputs'].float(), one['inputs'].float())
        for key in ('band_names', 'sensor', 'scale'):
            assert got['data_samples'].get(key) == one['data_samples'].get(key)
    with pytest.raises(ConfigError, match='does not hold values'):
        pack_tiles(pairs, tmp_path / 'q.tiles', dtype='uint8', quiet=True)
