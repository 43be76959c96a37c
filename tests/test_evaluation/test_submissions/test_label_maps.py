# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""mmrsfm.LoveDASubmission and mmrsfm.ChangeMapSubmission."""

import io
import zipfile

import numpy as np
import pytest
import rasterio
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image
from rasterio.transform import Affine

from mmrsfm.errors import ConfigError, DataError, ImageSizeError
from mmrsfm.evaluation.submissions.base import MANIFEST
from tests.parity import PARITY_DIR

FIXTURE = PARITY_DIR / 'converters' / 'change_loveda_label'
LOVEDA = ('background', 'building', 'road', 'water', 'barren', 'forest', 'agricultural')
CHANGE = ('unchanged', 'changed')


def sample(path, labels):
    """A data sample as a segmentor returns it."""
    element = BaseDataElement(metainfo={'img_path': path})
    element.pred_sem_seg = PixelData(data=torch.as_tensor(np.asarray(labels))[None].long())
    return element


def run(kind, samples, classes, size=None, **arguments):
    evaluator = Evaluator([dict(type=f'mmrsfm.{kind}', **arguments)])
    evaluator.dataset_meta = {'classes': classes}
    for one in samples:
        evaluator.process([one], None)
    return evaluator.evaluate(size or len(samples))


def read_zip(path):
    with zipfile.ZipFile(path) as archive:
        return {
            name: np.asarray(Image.open(io.BytesIO(archive.read(name))))
            for name in archive.namelist()
        }


@pytest.mark.skipif(not FIXTURE.is_dir(), reason='no parity fixtures')
def test_parity_change_loveda_label(tmp_path):
    """The inputs are mmseg's files, one more than what it predicted; 0 was its 255."""
    samples, expected = [], {}
    for file in sorted((FIXTURE / 'input').glob('*.png')):
        predicted = np.asarray(Image.open(file)).astype(np.int64) - 1
        samples.append(sample(f'test/images/{file.name}', np.where(predicted < 0, 255, predicted)))
        expected[file.name] = np.asarray(Image.open(FIXTURE / 'expected' / file.name))
    out = tmp_path / 'out'
    assert run('LoveDASubmission', samples, LOVEDA, out_dir=str(out)) == {'loveda/images': 2}
    found = read_zip(out / 'loveda.zip')
    assert set(found) == set(expected)
    for name, labels in expected.items():
        assert found[name].dtype == np.uint8
        np.testing.assert_array_equal(found[name], labels)
        np.testing.assert_array_equal(np.asarray(Image.open(out / name)), labels)


def test_loveda_zip_is_the_same_again(tmp_path):
    out = tmp_path / 'out'
    labels = np.arange(12).reshape(3, 4) % 7
    samples = [sample(f'{name}.png', labels) for name in ('5', '4')]
    run('LoveDASubmission', samples, LOVEDA, out_dir=str(out))
    first = (out / 'loveda.zip').read_bytes()
    run('LoveDASubmission', samples[::-1], LOVEDA, out_dir=str(out))
    assert (out / 'loveda.zip').read_bytes() == first
    np.testing.assert_array_equal(read_zip(out / 'loveda.zip')['4.png'], labels)
    run('LoveDASubmission', samples[:1], LOVEDA, out_dir=str(out))
    assert sorted(file.name for file in out.iterdir()) == [MANIFEST, '5.png', 'loveda.zip']


@pytest.mark.parametrize(
    ('samples', 'classes', 'error', 'message'),
    [
        ([sample('a.png', [[7]])], LOVEDA, DataError, 'a.png: class 7 is predicted, and the'),
        ([sample('a.png', [[1]])], LOVEDA[:6], ConfigError, 'has 6 classes, LoveDA 7'),
        (
            [sample('rural/a.png', [[1]]), sample('urban/a.png', [[1]])],
            LOVEDA,
            DataError,
            r'urban/a.png: its map overwrote that of rural/a.png',
        ),
    ],
)
def test_loveda_wrong(tmp_path, samples, classes, error, message):
    with pytest.raises(error, match=message):
        run('LoveDASubmission', samples, classes, out_dir=str(tmp_path / 'out'))
    assert not (tmp_path / 'out/loveda.zip').exists()


def test_foreign_folder(tmp_path):
    (tmp_path / 'a.png').touch()
    with pytest.raises(ConfigError, match=r"holds 'a.png'"):
        run('LoveDASubmission', [sample('a.png', [[1]])], LOVEDA, out_dir=str(tmp_path))
    assert (tmp_path / 'a.png').stat().st_size == 0


def test_change_maps_are_white_on_black(tmp_path):
    samples = [
        sample(['A/t1.jpg', 'B/t1.jpg'], [[0, 1, 1], [255, 0, 1]]),
        sample(['A/t2.jpg', 'B/t2.jpg'], [[0]]),
    ]
    out = tmp_path / 'out'
    found = run('ChangeMapSubmission', samples, CHANGE, out_dir=str(out))
    assert found == {'change_maps/images': 2}
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / 't1.png')), [[0, 255, 255], [0, 0, 255]]
    )
    assert Image.open(out / 't1.png').mode == 'L'
    assert sorted(file.name for file in out.iterdir()) == [MANIFEST, 't1.png', 't2.png']


def test_change_maps_keep_the_georeferencing(tmp_path):
    paths = [str(tmp_path / f'{date}.tif') for date in ('2019', '2020')]
    transform = Affine(0.5, 0, 700.0, 0, -0.5, 900.0)
    for path in paths:
        with rasterio.open(
            path, 'w', driver='GTiff', count=3, dtype='uint8', height=2, width=3,
            crs='EPSG:32633', transform=transform,
        ):  # fmt: skip
            pass
    plain = tmp_path / 'plain.tif'
    Image.new('RGB', (3, 2)).save(plain)
    labels = [[0, 1, 1], [0, 0, 1]]
    out = tmp_path / 'out'
    samples = [sample(paths, labels), sample([str(plain)] * 2, labels)]
    run('ChangeMapSubmission', samples, CHANGE, out_dir=str(out))
    with rasterio.open(out / '2019.tif') as found:
        assert found.crs.to_epsg() == 32633 and found.transform == transform
        assert found.nodata is None  # 255 means "changed"
        np.testing.assert_array_equal(found.read(1), 255 * np.array(labels))
    np.testing.assert_array_equal(np.asarray(Image.open(out / 'plain.png')), 255 * np.array(labels))
    run('ChangeMapSubmission', samples, CHANGE, out_dir=str(out), file_format='png')
    assert sorted(file.name for file in out.iterdir()) == [MANIFEST, '2019.png', 'plain.png']
    with pytest.raises(ImageSizeError, match=r'the map is \(1, 1\)'):
        run('ChangeMapSubmission', [sample(paths, [[0]])], CHANGE, out_dir=str(out))
    with pytest.raises(ConfigError, match="file_format='bmp'"):
        run('ChangeMapSubmission', [], CHANGE, file_format='bmp')
