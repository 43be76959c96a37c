# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A scene in the form of MMEarth: what is written is read; what is unknown is missing."""

import json
import math

import h5py
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from data_converters.scene_to_mmearth import main, parse_layers, scene_to_mmearth
from mmrsfm.datasets import MMEarth
from mmrsfm.errors import BandMismatchError, ConfigError, CorruptImageError
from tests.formats.mmearth import LAYERS, make_mmearth

NAMES = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12']
GRID = from_origin(435730, 4179460, 10, 10)


def write(path, array, names=None, transform=GRID, crs='EPSG:32618', **options):
    with rasterio.open(
        path, 'w', driver='GTiff', count=len(array), height=array.shape[1], width=array.shape[2],
        dtype=array.dtype, crs=crs, transform=transform, **options,
    ) as out:  # fmt: skip
        out.write(array)
        if names:
            out.descriptions = names
    return path


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('place')
    rng = np.random.default_rng(0)
    image = rng.integers(1500, 4000, (13, 96, 64), dtype=np.uint16)
    image[:, :8, :8] = 0
    image[:, 80:, :16] = 0  # a tile without anything
    write(folder / 'scene.tif', image, NAMES)
    # On another grid, of 30 m: a plane that rises by 1 in 2.
    rows, _ = np.mgrid[:60, :60]
    height = (15.0 * (rows + 0.5))[None].astype(np.float32)
    grid = from_origin(435730 - 300, 4179460 + 300, 30, 30)
    write(folder / 'dem.tif', height, transform=grid)
    cover = rng.integers(0, 10, (1, 96, 64), dtype=np.uint8)
    write(folder / 'cover.tif', cover)
    radar = rng.normal(-12, 4, (2, 96, 64)).astype(np.float32)
    radar[:, :, 40:] = np.nan
    write(folder / 'radar.tif', radar)
    write(folder / 'lights.tif', np.full((1, 96, 64), -9, 'int16'), nodata=-9)
    return folder, image, cover[0], radar


def convert(place, target, **options):
    folder = place[0]
    layers = dict(
        aster=folder / 'dem.tif', dynamic_world=folder / 'cover.tif',
        sentinel1=folder / 'radar.tif', lights=folder / 'lights.tif',
    )  # fmt: skip
    values = dict(
        date='2019-04-30', layers=layers, biome=7, size=16, gap=8, quiet=True,
        splits=dict(train=0.6, val=0.2, test=0.2),
    )  # fmt: skip
    return scene_to_mmearth(folder / 'scene.tif', target, **{**values, **options})


@pytest.fixture(scope='module')
def made(place, tmp_path_factory):
    target = tmp_path_factory.mktemp('out') / 'my_scene'
    assert convert(place, target) == {'train': 12, 'val': 4, 'test': 3}
    return target


def test_the_form_is_that_of_the_generator(made, tmp_path):
    reference = make_mmearth(tmp_path / 'reference', count=2, size=16)
    assert sorted(p.name.replace('my_scene', 'x') for p in made.iterdir()) == sorted(
        p.name.replace('reference', 'x') for p in reference.iterdir()
    )
    with h5py.File(made / 'my_scene.h5') as ours, h5py.File(reference / 'reference.h5') as theirs:
        assert set(ours) == set(theirs) | {'lights'}
        for name in LAYERS:
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].shape[1:] == theirs[name].shape[1:]
            assert ours[name].chunks == theirs[name].chunks and len(ours[name]) == 19
        assert ours['metadata'].dtype == theirs['metadata'].dtype
    for suffix in ('tile_info', 'band_stats', 'splits'):
        a, b = (json.loads((root / f'{root.name}_{suffix}.json').read_text())
                for root in (made, reference))  # fmt: skip
        assert set(b) <= set(a) or suffix == 'tile_info'


def test_tiles_are_the_scene(place, made):
    _, image, cover, radar = place
    pipeline = [
        dict(
            type='mmrsfm.LoadMMEarth', inputs=['sentinel2'],
            modalities=dict(lights=dict(kind='map', bands=1)),
            targets=['sentinel1', 'aster', 'dynamic_world', 'lat', 'lon', 'month', 'biome', 'era5',
                     'eco_region', 'canopy_height_eth', 'esa_worldcover', 'lights'],
        ),
        dict(type='mmrsfm.NormalizeMMEarth'),
        dict(type='mmrsfm.PackInputs', algorithm_keys=('targets',), meta_keys=('tile_id',)),
    ]  # fmt: skip
    dataset = MMEarth(str(made), pipeline=pipeline)
    statistics = json.loads((made / 'my_scene_band_stats.json').read_text())
    item = dataset[5]
    assert item['data_samples'].tile_id == 'scene_00016_00016'
    window = np.s_[16:32, 16:32]
    order = [NAMES.index(name) for name in item['data_samples'].band_names]
    pixels = image[order][:, 16:32, 16:32]
    stored = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B10', 'B11',
              'B12']  # fmt: skip
    chosen = [stored.index(name) for name in item['data_samples'].band_names]
    row = statistics['sentinel2_l1c']
    mean, std = (np.array(row[key])[chosen, None, None] for key in ('mean', 'std'))
    np.testing.assert_allclose(item['inputs'], (pixels - mean) / std, rtol=1e-4, atol=1e-5)
    training = image[order][:, :48]
    np.testing.assert_allclose(mean[:, 0, 0], [band[band > 0].mean() for band in training])
    np.testing.assert_allclose(std[:, 0, 0], [band[band > 0].std() for band in training])
    targets = item['data_samples'].targets
    assert np.array_equal(targets['dynamic_world'], cover[window].astype(int) - 1)
    back = targets['sentinel1'][0] * statistics['sentinel1']['std'][0]
    back = back + statistics['sentinel1']['mean'][0]
    np.testing.assert_allclose(back, radar[0][window], rtol=1e-4)
    assert targets['sentinel1'][2:].isnan().all()
    slope = targets['aster'][1] * statistics['aster']['std'][1] + statistics['aster']['mean'][1]
    np.testing.assert_allclose(slope, math.degrees(math.atan(0.5)), atol=1)
    assert targets['biome'] == 7 and targets['eco_region'] == -1
    for name in ('era5', 'canopy_height_eth', 'lights'):
        assert targets[name].isnan().all()
    assert (targets['esa_worldcover'] == -1).all()
    assert (targets['month'] == 0).all()  # the same everywhere
    info = json.loads((made / 'my_scene_tile_info.json').read_text())['scene_00016_00016']
    assert 37.5 < info['lat'] < 38 and -76 < info['lon'] < -75
    assert not dataset[0]['data_samples'].valid_mask[:, :8, :8].any()
    assert dataset[2]['data_samples'].targets['sentinel1'][0, :, 8:].isnan().all()


def test_offset_level_and_missing_month(place, tmp_path):
    convert(place, tmp_path / 'a', offset=-2000, date=None, layers={}, level='l2a')
    with h5py.File(tmp_path / 'a' / 'a.h5') as file:
        first = file['sentinel2'][0]
        assert (first[:, :8, :8] == 0).all()
        assert first[:, 8:].min() == 1  # dark, not missing
        assert np.isneginf(file['month'][0]).all()
        assert file['metadata'][0]['S2_type'] == b'l2a'


def test_what_cannot_be_done(place, made, tmp_path):
    folder, image, *_ = place
    with pytest.raises(ConfigError, match='exists'):
        convert(place, made)
    for options, words in (
        (dict(level='l3'), 'level is one of'),
        (dict(biome=14), 'biome is 0 to 13'),
        (dict(date='April'), 'YYYY-MM-DD'),
        (dict(min_valid=1.1), 'no training tile'),
    ):
        with pytest.raises(ConfigError, match=words):
            convert(place, tmp_path / 'x', **options)
    assert not list(tmp_path.rglob('*.h5')) and not list(tmp_path.rglob('*.partial'))
    with pytest.raises(BandMismatchError, match='2 band'):
        convert(place, tmp_path / 'y', layers=dict(esa_worldcover=folder / 'radar.tif'))
    with pytest.raises(BandMismatchError, match='era5 is no map'):
        convert(place, tmp_path / 'y', layers=dict(era5=folder / 'radar.tif'))
    with pytest.raises(CorruptImageError, match='cannot be opened'):
        convert(place, tmp_path / 'y', layers=dict(aster=folder / 'none.tif'))
    few = write(tmp_path / 'few.tif', image[:4], NAMES[:4])
    with pytest.raises(BandMismatchError, match=r"lacks \['B05'"):
        scene_to_mmearth(few, tmp_path / 'z', quiet=True)
    with pytest.raises(ConfigError, match='NAME=FILE'):
        parse_layers(['aster'])


def test_the_command(place, tmp_path, monkeypatch, capsys):
    target = tmp_path / 'out'
    words = ['x', str(place[0] / 'scene.tif'), str(target), '--size', '16', '--gap', '0']
    monkeypatch.setattr('sys.argv', [*words, '--layer', f'aster={place[0] / "dem.tif"}'])
    main()
    assert 'train' in capsys.readouterr().out
    assert (target / 'out.h5').is_file()
