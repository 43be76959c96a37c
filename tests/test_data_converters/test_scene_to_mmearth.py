# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A scene in the form of MMEarth: what is written is read; what is unknown is missing."""

import json
import math

import h5py
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.transform import from_origin

from data_converters.scene_to_mmearth import main, parse_layers, scene_to_mmearth
from mmrsfm.datasets import MMEarth
from mmrsfm.datasets.mmearth_writer import MMEarthWriter, StoredLayer
from mmrsfm.errors import BandMismatchError, ConfigError, CorruptImageError, ImageSizeError
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


def stored(place, target, **layers):
    """Layers of all tiles, as they are written."""
    convert(place, target, layers=layers, gap=0, min_valid=0)
    with h5py.File(target / f'{target.name}.h5') as file:
        return {name: file[name][:] for name in layers}


def test_a_raster_of_a_part_of_the_scene(place, tmp_path):
    """Beside it nothing is known, whether or not it says what stands for no data."""
    for dtype in ('int16', 'uint8', 'float32'):
        part = write(tmp_path / f'{dtype}.tif', np.full((1, 96, 24), 7, dtype))
        missing_numbers = dict(aster=-32768, canopy_height_eth=127, mine=np.nan)
        layers = stored(place, tmp_path / dtype, **dict.fromkeys(missing_numbers, part))
        for layer, missing in missing_numbers.items():
            found = layers[layer][:4, 0]
            assert (found[0] == 7).all() and (found[1, :, :7] == 7).all()
            np.testing.assert_array_equal(found[1, :, 9:], missing)
            np.testing.assert_array_equal(found[2:], missing)
    # The same ground with the south on top, and turned by a quarter.
    for name, turned in (
        ('south', from_origin(435730, 4179460 - 960, 10, -10)),
        ('turned', GRID @ Affine.translation(0, 96) @ Affine.rotation(-90)),
    ):
        whole = write(tmp_path / f'{name}.tif', np.full((1, 96, 96), 7, 'int16'), transform=turned)
        layers = stored(place, tmp_path / name, aster=whole)
        assert (layers['aster'][:4, 0, 1:-1, 1:-1] == 7).all()
    away = write(
        tmp_path / 'away.tif',
        np.ones((1, 9, 9), 'int16'),
        transform=from_origin(436380, 4179460, 10, 10),
    )
    with pytest.raises(BandMismatchError, match=r'away\.tif: .* another place'):
        stored(place, tmp_path / 'x', aster=away)
    nowhere = write(tmp_path / 'nowhere.tif', np.ones((1, 9, 9), 'int16'), crs=None)
    with pytest.raises(CorruptImageError, match=r'nowhere\.tif: has no georeference'):
        stored(place, tmp_path / 'x', aster=nowhere)


@pytest.mark.parametrize('dtype', ['int16', 'float32'])
def test_slope_of_a_coarser_model(place, tmp_path, dtype):
    """Of whole metres on a grid of 30 m, too: not the steps from pixel to pixel."""
    rows, columns = np.mgrid[:60, :60]
    plane = (3.0 * rows + 6.0 * columns)[None].astype(dtype)
    grid = from_origin(435730 - 300, 4179460 + 300, 30, 30)
    model = write(tmp_path / 'd.tif', plane, transform=grid)
    slope = stored(place, tmp_path / 'x', aster=model)['aster'][:, 1]
    assert (slope == round(math.degrees(math.atan(math.hypot(0.1, 0.2))))).all()


def test_slope_where_degrees_of_longitude_are_short(tmp_path):
    """At 60 degrees north, half as long as those of latitude; up to the border of the scene."""
    step = 1e-4
    grid = from_origin(10, 60 + 32 * step, step, step)
    image = np.full((13, 64, 64), 1000, np.uint16)
    scene = write(tmp_path / 'scene.tif', image, NAMES, grid, crs='EPSG:4326')
    east = step * 111_320 * math.cos(math.radians(60))
    height = np.broadcast_to(0.5 * east * np.arange(64), (1, 64, 64)).astype(np.float32)
    model = write(tmp_path / 'd.tif', height, transform=grid, crs='EPSG:4326')
    target = tmp_path / 'out'
    scene_to_mmearth(
        scene, target, layers=dict(aster=model), size=64, splits=dict(train=1.0), quiet=True
    )
    with h5py.File(target / 'out.h5') as file:
        assert (file['aster'][0, 1] == round(math.degrees(math.atan(0.5)))).all()


def test_names_and_numbers_of_other_tools(place, tmp_path):
    folder, image, *_ = place
    short = [f'B{name[2]}' if name[1] == '0' else name for name in NAMES]
    options = dict(size=16, gap=0, quiet=True)
    for name, array in (('whole', image), ('float', image.astype(np.float32))):
        scene_to_mmearth(write(tmp_path / f'{name}.tif', array, short), tmp_path / name, **options)
    scene_to_mmearth(folder / 'scene.tif', tmp_path / 'same', **options)
    files = [h5py.File(tmp_path / name / f'{name}.h5') for name in ('whole', 'float', 'same')]
    for file in files[:2]:
        assert np.array_equal(file['sentinel2'][:], files[2]['sentinel2'][:])
    for file in files:
        file.close()
    unit = write(tmp_path / 'unit.tif', (image / 1e4).astype(np.float32), NAMES)
    with pytest.raises(BandMismatchError, match=r'times 10,000, here it is at most 0\.39'):
        scene_to_mmearth(unit, tmp_path / 'unit', **options)
    assert not (tmp_path / 'unit' / 'unit.h5').exists()


def test_the_writer_takes_nothing_that_it_would_lose(tmp_path):
    with MMEarthWriter(tmp_path / 'x.h5', 4) as writer:
        image = np.full((13, 4, 4), 5)
        writer.write('a', 'train', 'l1c', dict(sentinel2=image), {})
        for name, level, tile, words in (
            ('a', 'l1c', {}, 'different names'),
            ('b' * 101, 'l1c', {}, 'at most 100 bytes'),
            ('b', 'L1C', {}, 'level is one of'),
            ('b', 'l1c', dict(snow=image), "without 'snow'"),
            ('b', 'l1c', dict(sentinel2=image * 20_000), 'holds uint16, got 100000'),
            ('b', 'l1c', dict(sentinel2=image * np.nan), 'holds uint16, got nan'),
        ):
            with pytest.raises(ConfigError, match=words):
                writer.write(name, 'train', level, tile, {})
        with pytest.raises(ImageSizeError, match='sentinel2: has shape'):
            writer.write('b', 'train', 'l1c', dict(sentinel2=image[:1]), {})
        writer.write('b', 'extra', 'l1c', dict(sentinel2=image), {})
        (tmp_path / 'x').mkdir()
        writer.finish(tmp_path / 'x')
    splits = json.loads((tmp_path / 'x' / 'x_splits.json').read_text())
    assert splits == dict(train=[0], val=[], test=[], extra=[1])


def test_statistics_of_small_differences(tmp_path):
    """A plateau: the deviation is a millionth of the mean; of what never differs it is 1."""
    rng = np.random.default_rng(0)
    heights = 4e6 + rng.normal(0, 1, (3, 1, 8, 8))
    with MMEarthWriter(tmp_path / 'x.h5', 8, dict(h=StoredLayer(1, 'float64', math.nan))) as writer:
        for number, tile in enumerate(heights):
            known = dict(h=tile) if number else dict(h=np.where(tile > 4e6, tile, np.nan))
            known['aster'] = np.full((2, 8, 8), 401)
            writer.write(str(number), 'train', 'l2a', known, {})
        writer.finish(tmp_path)
    row = json.loads((tmp_path / f'{tmp_path.name}_band_stats.json').read_text())
    values = np.concatenate([heights[0][heights[0] > 4e6], heights[1:].ravel()])
    np.testing.assert_allclose(row['h']['mean'], values.mean(), rtol=1e-14)
    np.testing.assert_allclose(row['h']['std'], values.std(), rtol=1e-6)
    assert row['aster']['std'] == [1, 1] and row['aster']['mean'] == [401, 401]
    assert math.isnan(row['sentinel1']['mean'][0])


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
    with pytest.raises(ConfigError, match='one file for each name'):
        parse_layers(['aster=a.tif', 'aster=b.tif'])
    with pytest.raises(ConfigError, match='at least 1'):
        convert(place, tmp_path / 'x', stride=0)


def test_the_command(place, tmp_path, monkeypatch, capsys):
    target = tmp_path / 'out'
    words = ['x', str(place[0] / 'scene.tif'), str(target), '--size', '16', '--gap', '0']
    layers = [f'--layer={name}={place[0] / file}.tif' for name, file in
              (('aster', 'dem'), ('dynamic_world', 'cover'))]  # fmt: skip
    monkeypatch.setattr('sys.argv', [*words, *layers])
    main()
    assert 'train' in capsys.readouterr().out
    with h5py.File(target / 'out.h5') as file:
        assert file['aster'][0].min() > 0 and file['dynamic_world'][0].any()
