# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""cut_pairs: grids, resolutions, what has too little data, a run that was stopped, errors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from data_converters.cut_pairs import PairCounts, cut_folders, cut_pairs
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
    ImageSizeError,
)
from mmrsfm.registry import DATASETS
from tests import formats

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


def write(path, array, left=500000.0, top=4000000.0, step=1.0, crs='EPSG:32631', nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {} if crs is None else dict(crs=crs, transform=from_origin(left, top, step, step))
    with rasterio.open(
        path, 'w', driver='GTiff', count=len(array), dtype=array.dtype, height=array.shape[1],
        width=array.shape[2], nodata=nodata, **place,
    ) as out:  # fmt: skip
        out.write(array)
    return path


def read(path):
    with rasterio.open(path) as source:
        return source.read(), source.profile


def tiles(target, kind='rgb'):
    return sorted(path.name for path in (target / kind).glob('*'))


@pytest.fixture
def rgb(tmp_path):
    values = np.random.default_rng(0).integers(1, 255, (3, 70, 100), dtype=np.uint8)
    return write(tmp_path / 'optical' / 'scene.tif', values)


def ramp(height=70, width=100, dtype='uint16'):
    """Column plus 1000 times row, from 1 on."""
    return (np.arange(width) + 1 + 500 * np.arange(height)[:, None]).astype(dtype)[None]


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_one_grid_is_copied(tmp_path, rgb, dtype):
    values = np.clip(ramp(), 1, 250).astype(dtype) if dtype == 'uint8' else ramp(dtype=dtype)
    sar = write(tmp_path / 'sar' / 'other_name.tif', values)
    target = tmp_path / 'out'
    assert cut_pairs(rgb, sar, target, size=32, quiet=True) == PairCounts(kept=12, skipped=0)
    places = [(row, column) for row in (0, 32, 38) for column in (0, 32, 64, 68)]
    names = [f'scene_{row:05d}_{column:05d}.tif' for row, column in places]
    assert tiles(target) == tiles(target, 'sar') == names
    for name, (row, column) in zip(names, places, strict=True):
        for kind, source in (('rgb', rgb), ('sar', sar)):
            array, profile = read(target / kind / name)
            assert np.array_equal(array, read(source)[0][:, row : row + 32, column : column + 32])
            assert profile['dtype'] == ('uint8' if kind == 'rgb' else dtype)
            assert profile['crs'].to_epsg() == 32631
            assert profile['transform'] == from_origin(500000 + column, 4000000 - row, 1, 1)
            # What counts as no data is declared.
            declared = None if kind == 'rgb' else np.nan if dtype == 'float32' else 0
            np.testing.assert_equal(profile['nodata'], declared)


def test_sar_is_brought_to_the_optical_grid(tmp_path, rgb):
    # Twice as coarse, larger, and in another zone's coordinates in the second case.
    coarse = ramp(60, 80, 'float32')
    sar = write(tmp_path / 'sar.tif', coarse, left=499980.0, top=4000010.0, step=2.0)
    target = tmp_path / 'out'
    assert cut_pairs(rgb, sar, target, size=64, stride=36, quiet=True).kept == 4
    array, profile = read(target / 'sar' / 'scene_00000_00000.tif')
    assert profile['dtype'] == 'float32'
    assert profile['transform'] == from_origin(500000, 4000000, 1, 1)
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    # Centres in pixels of the coarse image, whose values are linear in both directions.
    expected = ((columns + 20) / 2 - 0.5 + 1) + 500 * ((rows + 10) / 2 - 0.5)
    assert np.allclose(array[0], expected, rtol=1e-5, atol=0.2)
    with rasterio.open(rgb) as source:
        bounds = rasterio.warp.transform_bounds(source.crs, 'EPSG:4326', *source.bounds)
    step = (bounds[2] - bounds[0]) / 150
    around = write(
        tmp_path / 'degrees.tif', np.full((1, 250, 250), 7, np.uint16),
        left=bounds[0] - 20 * step, top=bounds[3] + 20 * step, step=step, crs='EPSG:4326',
    )  # fmt: skip
    assert cut_pairs(rgb, around, tmp_path / 'two', size=64, quiet=True).kept == 4
    assert (read(tmp_path / 'two' / 'sar' / 'scene_00000_00000.tif')[0] == 7).all()


def test_tiles_with_too_little_data_are_left_out(tmp_path, rgb):
    values = ramp()
    values[:, :, :64] = 0
    sar = write(tmp_path / 'zero.tif', values)
    assert cut_pairs(rgb, sar, tmp_path / 'a', size=32, quiet=True) == PairCounts(6, 6)
    assert tiles(tmp_path / 'a')[:2] == ['scene_00000_00064.tif', 'scene_00000_00068.tif']
    assert cut_pairs(rgb, sar, tmp_path / 'b', size=32, min_valid=0, quiet=True).skipped == 0
    floats = ramp(dtype='float32')
    floats[:, :, :64] = np.nan
    nan = write(tmp_path / 'nan.tif', floats)
    assert cut_pairs(rgb, nan, tmp_path / 'c', size=32, quiet=True) == PairCounts(6, 6)
    part = write(tmp_path / 'part.tif', ramp(70, 50), left=500050.0)  # the eastern half
    assert cut_pairs(rgb, part, tmp_path / 'd', size=20, stride=10, quiet=True).kept > 0
    array, profile = read(tmp_path / 'd' / 'sar' / 'scene_00000_00050.tif')
    assert profile['nodata'] == 0
    assert (array > 0).all()
    assert not (tmp_path / 'd' / 'sar' / 'scene_00000_00030.tif').exists()
    black = read(rgb)[0]
    black[:, :31] = 0
    dark = write(tmp_path / 'dark.tif', black)
    good = write(tmp_path / 'good.tif', ramp())
    assert cut_pairs(dark, good, tmp_path / 'e', size=48, quiet=True).kept == 3
    assert cut_pairs(dark, good, tmp_path / 'f', size=48, min_valid_optical=0, quiet=True).kept == 6


def test_a_stopped_run_goes_on(tmp_path, rgb):
    sar = write(tmp_path / 'sar.tif', ramp())
    target = tmp_path / 'out'
    cut_pairs(rgb, sar, target, size=32, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in target.rglob('*.tif')}
    gone = target / 'sar' / 'scene_00000_00032.tif'
    gone.unlink()
    (target / 'sar' / '.scene_00000_00032.tif.partial').write_bytes(b'half')
    assert cut_pairs(rgb, sar, target, size=32, quiet=True).kept == 12
    assert len(tiles(target, 'sar')) == 12
    kept = [path for path in before if path.name != gone.name]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)
    for options in ({'size': 40}, {'size': 32, 'stride': 16}):
        if options == {'size': 32, 'stride': 16}:  # more tiles on the same grid are no harm
            assert cut_pairs(rgb, sar, target, quiet=True, **options).kept > 12
            options = {'size': 32}
        with pytest.raises(ConfigError, match='of another size, stride or scene'):
            cut_pairs(rgb, sar, target, quiet=True, **options)


@pytest.mark.parametrize(
    'options',
    [
        {'optical_bands': [1]}, {'sar_bands': [1]}, {'sar_nodata': 3.0}, {'resampling': 'nearest'},
        {'min_valid': 0.5}, {'min_valid_optical': 0.1}, {'amplitude': True},
    ],
)  # fmt: skip
def test_tiles_of_other_options_are_not_taken_for_done(tmp_path, rgb, options):
    sar = write(tmp_path / 'sar.tif', ramp())
    target = tmp_path / 'out'
    cut_pairs(rgb, sar, target, size=32, quiet=True)
    (name,) = options
    with pytest.raises(ConfigError, match=rf'was cut with other options \({name}='):
        cut_pairs(rgb, sar, target, size=32, quiet=True, **options)
    later = write(tmp_path / 'later.tif', ramp())
    with pytest.raises(ConfigError, match=r'other options \(sar scene=sar\.tif\)'):
        cut_pairs(rgb, later, target, size=32, quiet=True)
    assert cut_pairs(rgb, sar, target, size=32, compress=None, quiet=True).kept == 12


def test_a_tile_of_unknown_origin_is_not_taken_for_done(tmp_path, rgb):
    sar = write(tmp_path / 'sar.tif', ramp())
    write(tmp_path / 'out' / 'rgb' / 'scene_00000_00000.tif', np.ones((3, 32, 32), np.uint8))
    with pytest.raises(ConfigError, match='size=unknown'):
        cut_pairs(rgb, sar, tmp_path / 'out', size=32, quiet=True)


def test_south_on_top(tmp_path, rgb):
    values = read(rgb)[0]
    upside = tmp_path / 'upside.tif'
    with rasterio.open(
        upside, 'w', driver='GTiff', count=3, dtype='uint8', height=70, width=100,
        crs='EPSG:32631', transform=rasterio.Affine(1, 0, 500000, 0, 1, 4000000 - 70),
    ) as out:  # fmt: skip
        out.write(values[:, ::-1])
    sar = write(tmp_path / 'sar.tif', ramp())
    assert cut_pairs(upside, sar, tmp_path / 'out', size=64, quiet=True).kept == 4
    array, _ = read(tmp_path / 'out' / 'sar' / 'upside_00000_00000.tif')
    assert np.array_equal(array, ramp()[:, ::-1][:, :64, :64])


def test_bands_and_complex_values(tmp_path, rgb):
    waves = (ramp() * (3 + 4j)).astype('complex64')
    sar = write(tmp_path / 'waves.tif', waves)
    with pytest.raises(BandMismatchError, match=r'waves\.tif: complex values .*--amplitude'):
        cut_pairs(rgb, sar, tmp_path / 'a', size=32, quiet=True)
    cut_pairs(rgb, sar, tmp_path / 'a', size=64, amplitude=True, quiet=True)
    array, profile = read(tmp_path / 'a' / 'sar' / 'scene_00000_00000.tif')
    assert profile['dtype'] == 'float32'
    assert np.allclose(array, 5.0 * ramp()[:, :64, :64])
    shifted = write(tmp_path / 'shifted.tif', waves, left=500000.4)
    with pytest.raises(DataError, match='cannot be resampled'):
        cut_pairs(rgb, shifted, tmp_path / 'b', size=32, amplitude=True, quiet=True)
    # A Sentinel-1 SLC holds complex integers, which NumPy has no type for; 0 is no data.
    slc = tmp_path / 'slc.tif'
    waves[:, :, :40] = 0
    with rasterio.open(
        slc, 'w', driver='GTiff', count=1, dtype='complex_int16', height=70, width=100,
        crs='EPSG:32631', transform=from_origin(500000, 4000000, 1, 1),
    ) as out:  # fmt: skip
        out.write(np.clip(waves.real, 0, 3000) + 4j)
    with pytest.raises(BandMismatchError, match='complex_int16'):
        cut_pairs(rgb, slc, tmp_path / 'd', size=32, quiet=True)
    cut_pairs(rgb, slc, tmp_path / 'd', size=64, amplitude=True, quiet=True)
    four = write(
        tmp_path / 'four.tif',
        np.repeat(ramp(), 4, axis=0) + np.arange(4, dtype='uint16')[:, None, None],
    )
    cut_pairs(rgb, four, tmp_path / 'c', size=64, sar_bands=[3], optical_bands=[3, 1], quiet=True)
    assert np.array_equal(
        read(tmp_path / 'c' / 'sar' / 'scene_00000_00000.tif')[0], ramp()[:, :64, :64] + 2
    )
    assert np.array_equal(
        read(tmp_path / 'c' / 'rgb' / 'scene_00000_00000.tif')[0], read(rgb)[0][[2, 0], :64, :64]
    )


def test_unusable_scenes(tmp_path, rgb):
    sar = write(tmp_path / 'sar.tif', ramp())
    with pytest.raises(ImageSizeError, match=r'scene\.tif: 70 x 100 .* less than a tile of 80'):
        cut_pairs(rgb, sar, tmp_path / 'out', size=80)
    bare = write(tmp_path / 'bare.tif', ramp(), crs=None)
    with pytest.raises(DataError, match=r'bare\.tif: has no coordinate .*same_grid'):
        cut_pairs(rgb, bare, tmp_path / 'out', size=32)
    assert cut_pairs(rgb, bare, tmp_path / 'same', size=32, same_grid=True, quiet=True).kept == 12
    small = write(tmp_path / 'small.tif', ramp(60), crs=None)
    with pytest.raises(DataError, match=r'\(60, 100\), not \(70, 100\)'):
        cut_pairs(rgb, small, tmp_path / 'out', size=32, same_grid=True)
    points = [rasterio.control.GroundControlPoint(0, 0, 500000, 4000000)]
    with rasterio.open(
        tmp_path / 'grd.tif', 'w', driver='GTiff', count=1, dtype='uint16', height=70, width=100,
        gcps=points, crs='EPSG:32631',
    ) as out:  # fmt: skip
        out.write(ramp())
    with pytest.raises(DataError, match='control points alone: geocode it first'):
        cut_pairs(rgb, tmp_path / 'grd.tif', tmp_path / 'out', size=32)
    far = write(tmp_path / 'far.tif', ramp(), left=600000.0)
    with pytest.raises(DataError, match=r'far\.tif: covers none of the ground of .*scene\.tif'):
        cut_pairs(rgb, far, tmp_path / 'out', size=32)
    (tmp_path / 'text.tif').write_text('no image')
    with pytest.raises(CorruptImageError, match=r'text\.tif: cannot be opened'):
        cut_pairs(rgb, tmp_path / 'text.tif', tmp_path / 'out', size=32)
    broken = tmp_path / 'broken.tif'
    broken.write_bytes(sar.read_bytes()[:6000])
    with pytest.raises(CorruptImageError, match=r'broken\.tif: cannot be read'):
        cut_pairs(rgb, broken, tmp_path / 'broken', size=32, quiet=True)
    with pytest.raises(CorruptImageError, match='cannot be read'):
        cut_pairs(rgb, sar, tmp_path / 'out', size=32, sar_bands=[2], quiet=True)
    for options in ({'size': 0}, {'min_valid': 2}, {'resampling': 'best'}, {'stride': -1}):
        with pytest.raises(ConfigError):
            cut_pairs(rgb, sar, tmp_path / 'out', **options)
    assert not list((tmp_path / 'out').rglob('*'))


def test_folders_become_the_layout_of_mars16m(tmp_path, rgb):
    second = write(tmp_path / 'optical' / 'b.tif', read(rgb)[0] // 2 + 1)
    for name in ('scene', 'b'):
        write(tmp_path / 'sar' / f'{name}.tiff', ramp())
    root = tmp_path / 'out'
    run = subprocess.run(
        [
            sys.executable, str(REPO / 'data_converters/cut_pairs.py'), str(tmp_path / 'optical'),
            str(tmp_path / 'sar'), str(root), '--sensor', 'umbra', '--size', '32',
            '--workers', '2', '--compress', 'none',
        ],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert '24 pairs, 0 with too little data' in run.stdout
    assert 'scenes' in run.stderr
    folders = (tmp_path / 'optical', tmp_path / 'sar', root / 'Capella_patches')
    assert set(cut_folders(*folders, size=32, quiet=True)) == {'b', 'scene'}
    dataset = DATASETS.build(dict(type='mmrsfm.MaRS16M', data_root=str(root)))
    assert len(dataset) == 48
    assert dataset.get_data_info(0)['sensor'] == 'umbra'
    write(tmp_path / 'sar' / 'b.tif', ramp())
    with pytest.raises(ConfigError, match=r'b\.tiff and b\.tif would give tiles of one name'):
        cut_folders(tmp_path / 'optical', tmp_path / 'sar', tmp_path / 'x', size=32)
    (tmp_path / 'sar' / 'b.tif').unlink()
    second.unlink()
    with pytest.raises(DatasetNotFoundError, match=r'b\.tiff: has no scene of the same name'):
        cut_folders(tmp_path / 'optical', tmp_path / 'sar', tmp_path / 'x', size=32)


def test_scenes_as_sensors_deliver_them(tmp_path):
    """Drawn without knowledge of the converter: degrees and metres, declared no data and none."""
    source = formats.make_scene_pairs(tmp_path / 'source')
    counts = cut_folders(source / 'optical', source / 'sar', tmp_path / 'out', size=64, quiet=True)
    assert set(counts) == {'scene_0', 'scene_1'}
    assert counts['scene_0'].skipped and not counts['scene_1'].skipped  # the empty eighth
    load = dict(type='mmrsfm.LoadModalities', modalities=dict(rgb=3, sar=1))
    dataset = DATASETS.build(
        dict(type='mmrsfm.PairedModalityDataset', data_root=str(tmp_path / 'out'), pipeline=[load])
    )
    assert len(dataset) == sum(one.kept for one in counts.values())
    for scene in counts:
        places = ([], [])
        for sample in dataset:
            image, name = sample['img'], Path(sample['img_path']).name
            valid = sample.get('valid_mask', np.ones(image.shape, bool)).all(-1)
            stands = image[..., :3].min(-1) > 115
            if not name.startswith(scene) or stands.mean() < 0.05:
                continue
            for found, shift in zip(places, (0, 12), strict=True):
                on = np.roll(stands, shift, axis=1) & valid
                found.append(np.median(image[..., 3][on]) / np.median(image[..., 3][valid & ~on]))
        # What is bright in the picture scatters, where it stands and not beside it.
        assert np.median(places[0]) > 1.5 * np.median(places[1]), scene


def test_no_warning_about_missing_georeference(tmp_path, recwarn):
    values = np.full((3, 32, 32), 9, np.uint8)
    pair = [write(tmp_path / f'{name}.tif', values, crs=None) for name in 'ab']
    cut_pairs(*pair, tmp_path / 'out', size=32, same_grid=True, quiet=True)
    assert not [one for one in recwarn if issubclass(one.category, NotGeoreferencedWarning)][2:]
