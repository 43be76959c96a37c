# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cutting large images: the same patches as mmrotate's splitter, and what can go wrong."""

import runpy
from pathlib import Path

import cv2
import mmrotate
import numpy as np
import pytest
from PIL import Image

from data_converters.split_dota import (
    PRESETS,
    Objects,
    SplitSettings,
    Window,
    annotation_lines,
    objects_of,
    read_dota_labels,
    split_dota,
    windows_of,
)
from mmrsfm.errors import ConfigError, CorruptImageError, DataError, DatasetNotFoundError
from mmrsfm.utils.rgb import RGBRaster

SPLITTER = Path(mmrotate.__file__).parent / '.mim/tools/data/dota/split/img_split.py'
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


@pytest.fixture
def scenes(tmp_path):
    """Two images of which one has labels with the header of DOTA."""
    rng = np.random.default_rng(0)
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    for name, shape in (('P1', (150, 230)), ('P2', (40, 60))):
        cv2.imwrite(
            str(tmp_path / 'images' / f'{name}.png'),
            rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        )
    (tmp_path / 'labels' / 'P1.txt').write_bytes(
        b'imagesource:GoogleEarth\r\ngsd:0.25\r\n10 10 30 10 30 20 10 20 ship 1\r\n\r\n'
        b'90 60 110 60 110 80 90 80 large-vehicle 0\r\n'
    )
    (tmp_path / 'labels' / 'P2.txt').write_text('imagesource:GoogleEarth\ngsd:null\n')
    return tmp_path


def split(root, target='out', **settings):
    settings = SplitSettings(**{'size': 100, 'gap': 20, **settings})
    return split_dota(
        [root / 'images'], root / target, [root / 'labels'], settings, workers=2, quiet=True
    )


def random_objects(rng, width, height, count=40):
    centres = rng.uniform(0, [width, height], (count, 1, 2))
    angles, sides = rng.uniform(0, np.pi, count), rng.uniform(3, 120, (count, 2))
    units = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], -1)
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = centres + (signs * sides[:, None]) @ units.reshape(-1, 2, 2)
    return Objects(np.round(corners).reshape(-1, 8), ('ship',) * count, (0, 1) * (count // 2))


@pytest.mark.skipif(not SPLITTER.exists(), reason='this mmrotate does not ship its tools')
@pytest.mark.parametrize('preset', list(PRESETS))
def test_windows_and_objects_as_of_mmrotate(preset):
    theirs = runpy.run_path(str(SPLITTER))
    settings = SplitSettings(**PRESETS[preset])
    sizes = [int(settings.size / rate) for rate in settings.rates]
    gaps = [int(settings.gap / rate) for rate in settings.rates]
    rng = np.random.default_rng(1)
    shapes = [
        (1024, 1024),
        (800, 600),
        (2049, 1024),
        (1848, 3001),
        *rng.integers(200, 4000, (8, 2)),
    ]
    for width, height in shapes:
        width, height = int(width), int(height)
        windows = windows_of(width, height, settings)
        expected = theirs['get_sliding_window'](
            {'width': width, 'height': height}, sizes, gaps, settings.img_rate_thr
        )
        squares = [(w.left, w.top, w.left + w.side, w.top + w.side) for w in windows]
        np.testing.assert_array_equal(squares, expected)
        objects = random_objects(rng, width, height)
        info = {'ann': {'bboxes': objects.corners.astype(np.float32)}}
        for found, other in zip(
            objects_of(objects, windows, settings.iof_thr),
            theirs['get_window_obj'](info, expected, settings.iof_thr),
            strict=True,
        ):
            np.testing.assert_array_equal(objects.corners[found[0]], other['bboxes'])
            np.testing.assert_array_equal(found[1], other['trunc'])


def test_fractions_do_not_make_an_object_truncated():
    # The areas of mmrotate are rounded to float32, so that whole objects look cut.
    corners = np.array([[10.1, 10.2, 410.3, 10.2, 410.3, 700.7, 10.1, 700.7]])
    objects = Objects(corners, ('ship',), (1,))
    window = Window(0, 0, 1024)
    ((chosen, truncated),) = objects_of(objects, [window], 0.7)
    assert chosen.tolist() == [0] and truncated.tolist() == [False]
    assert annotation_lines(objects, Window(10, 0, 1024), chosen, truncated) == [
        '0.1 10.2 400.3 10.2 400.3 700.7 0.1 700.7 ship 1'
    ]


def test_a_polygon_that_crosses_itself_is_kept():
    bow = Objects(np.array([[10.0, 10, 50, 50, 50, 10, 10, 50]]), ('ship',), (0,))
    line = Objects(np.array([[10.0, 10, 10, 10, 50, 50, 50, 50]]), ('ship',), (0,))
    assert objects_of(bow, [Window(0, 0, 100)], 0.7)[0][0].tolist() == [0]
    assert objects_of(line, [Window(0, 0, 100)], 0.7)[0][0].tolist() == []  # it has no area


def test_patches_annotations_and_padding(scenes):
    assert split(scenes) == (2, 7)
    out = scenes / 'out'
    assert sorted(path.stem for path in (out / 'images').iterdir()) == [
        'P1__100__0___0', 'P1__100__0___50', 'P1__100__130___0', 'P1__100__130___50',
        'P1__100__80___0', 'P1__100__80___50', 'P2__100__0___0',
    ]  # fmt: skip
    lines = (out / 'annfiles/P1__100__80___0.txt').read_text()
    assert lines == '10.0 60.0 30.0 60.0 30.0 80.0 10.0 80.0 large-vehicle 0\n'
    # Half of it: below 0.7; with a lower threshold it is cut, which is difficulty 2.
    assert 'large-vehicle' not in (out / 'annfiles/P1__100__0___0.txt').read_text()
    split(scenes, 'low', iof_thr=0.5)
    assert 'large-vehicle 2\n' in (scenes / 'low/annfiles/P1__100__0___0.txt').read_text()
    assert (out / 'annfiles/P2__100__0___0.txt').read_text() == ''
    whole, patch = (
        cv2.imread(str(path))
        for path in (scenes / 'images/P2.png', out / 'images/P2__100__0___0.png')
    )
    np.testing.assert_array_equal(patch[:40, :60], whole)
    assert (patch[40:] == (104, 116, 124)).all() and (patch[:, 60:] == (104, 116, 124)).all()  # BGR


def test_a_stopped_run_goes_on(scenes):
    split(scenes, rates=(0.5, 1.0))
    images = sorted((scenes / 'out/images').iterdir())
    times = {path: path.stat().st_mtime_ns for path in images}
    kept = images[1].read_bytes()
    images[1].unlink()
    (scenes / 'out/images' / f'.{images[1].name}.partial').write_bytes(b'half')
    split(scenes, rates=(0.5, 1.0))
    assert images[1].read_bytes() == kept
    assert [path for path in images if path.stat().st_mtime_ns != times[path]] == [images[1]]
    assert not list((scenes / 'out').rglob('.*'))


def test_other_settings_and_other_sources_do_not_mix(scenes):
    split(scenes)
    with pytest.raises(ConfigError, match='Remove the folder'):
        split(scenes, padding_value=(0,))
    (scenes / 'images/P2.png').unlink()
    (scenes / 'labels/P2.txt').unlink()
    with pytest.raises(ConfigError, match='1 files of another conversion, such as P2__100'):
        split(scenes)


@pytest.mark.parametrize(
    'line',
    ['1 2 3 ship 0', '1 2 3 4 5 6 7 x ship 0', '1 2 3 4 5 6 7 nan ship 0', '1 2 3 4 5 6 7 8'],
)
def test_a_broken_line_is_named(scenes, line):
    path = scenes / 'labels/P1.txt'
    path.write_text(f'gsd:1\n\n{line}\n')
    with pytest.raises(DataError, match=r'P1\.txt: line 3 is not'):
        read_dota_labels(path)


def test_difficulty_may_be_missing(tmp_path):
    (tmp_path / 'a.txt').write_text('1 2 3 4 5 6 7 8 ship\n')
    assert read_dota_labels(tmp_path / 'a.txt').difficulties == (0,)


def test_missing_and_doubled_files(scenes):
    (scenes / 'labels/P2.txt').unlink()
    with pytest.raises(DatasetNotFoundError, match=r'P2\.txt: there is no such annotation'):
        split(scenes)
    with pytest.raises(ConfigError, match='images is a folder of the source'):
        split(scenes, '.')
    folders = [scenes / 'images'] * 2
    with pytest.raises(ConfigError, match=r'P1\.png has the name of'):
        split_dota(folders, scenes / 'other', quiet=True)
    with pytest.raises(ConfigError, match='2 folders of images, but 1 of labels'):
        split_dota(folders, scenes / 'other', [scenes / 'labels'], quiet=True)
    with pytest.raises(DatasetNotFoundError, match='no such folder'):
        split_dota([scenes / 'none'], scenes / 'other', quiet=True)
    assert not (scenes / 'other').exists()


@pytest.mark.parametrize(
    'settings', [dict(gap=100), dict(rates=()), dict(iof_thr=0), dict(padding_value=(1, 2))]
)
def test_impossible_settings(settings):
    with pytest.raises(ConfigError):
        SplitSettings(**{'size': 100, **settings})


class TestRGBRaster:
    def test_strips_are_the_rows(self, scenes):
        whole = cv2.imread(str(scenes / 'images/P1.png'))[..., ::-1]
        with RGBRaster(scenes / 'images/P1.png') as raster:
            # Overlapping, touching, with a gap, and beyond the lower edge.
            for top, strip in raster.strips([0, 30, 70, 72, 120, 149], 40):
                np.testing.assert_array_equal(strip, whole[top : top + 40])

    @pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'LA'])
    def test_every_kind_becomes_rgb(self, tmp_path, mode):
        rng = np.random.default_rng(0)
        image = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).convert(mode)
        image.save(tmp_path / 'a.png')
        with RGBRaster(tmp_path / 'a.png') as raster:
            read = raster.read()
        expected = image.convert('L' if mode in ('L', 'LA') else 'RGBA').convert('RGB')
        np.testing.assert_array_equal(read, np.asarray(expected))

    def test_sixteen_bits_need_a_stretch(self, tmp_path):
        values = np.linspace(0, 4000, 10000, dtype=np.uint16).reshape(100, 100)
        values[:20] = 0
        Image.fromarray(values).save(tmp_path / 'a.tif')
        with pytest.raises(DataError, match=r'a\.tif: has samples of the type uint16.*stretch'):
            RGBRaster(tmp_path / 'a.tif')
        with RGBRaster(tmp_path / 'a.tif', (0, 100)) as raster:
            read = raster.read()
        # The empty part does not count: the darkest other value becomes 0.
        assert read.shape == (100, 100, 3) and read[20:].min() == 0 and read.max() == 255
        assert abs(int(read[60, 0, 0]) - 127) <= 2

    def test_truncated_files_are_named(self, scenes):
        path = scenes / 'images/P1.png'
        path.write_bytes(path.read_bytes()[:-20000])
        with pytest.raises(CorruptImageError, match=r'P1\.png'):
            split(scenes)
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))
        image.save(scenes / 'a.jpg')
        (scenes / 'a.jpg').write_bytes((scenes / 'a.jpg').read_bytes()[:-3000])
        with RGBRaster(scenes / 'a.jpg') as raster, pytest.raises(CorruptImageError):
            raster.read()
