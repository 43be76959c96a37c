# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""mmrsfm.RegistrationSubmission and mmrsfm.TranslationSubmission."""

import csv

import numpy as np
import pytest
import rasterio
import torch
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample

from mmrsfm.datasets.guso import read_homography
from mmrsfm.errors import ConfigError, DataError
from mmrsfm.registry import METRICS

SHIFT = torch.tensor([[1.0, 0, 1 / 3], [0, 1, -2], [0, 0, 1]], dtype=torch.float64)


def sample(path, found=True, values=0.0):
    one = DataSample(metainfo={'img_path': str(path)})
    one.set_field(SHIFT if found else torch.eye(3), 'pred_homography')
    one.set_field(found, 'registered')
    one.set_field('' if found else '3 matches, at least 8 are needed', 'failure')
    matches = InstanceData(confidence=torch.ones(3), inlier=torch.tensor([True, True, False]))
    one.set_field(matches, 'pred_matches')
    one.set_field(torch.full((2, 4, 5), values), 'pred_image')
    one.set_field({'crs': 'EPSG:32618', 'transform': (0.5, 0, 100, 0, -0.5, 200)}, 'geo')
    return one


def run(kind, *samples, **options):
    metric = METRICS.build(dict(type=f'mmrsfm.{kind}Submission', **options))
    metric.process(None, [one.to_dict() for one in samples])
    return metric.evaluate(len(samples))


def test_registrations(tmp_path):
    out = tmp_path / 'out'
    counts = run('Registration', sample('b.tif', found=False), sample('a.tif'), out_dir=str(out))
    assert counts == {'homographies/pairs': 2, 'homographies/registered': 1}
    np.testing.assert_array_equal(read_homography(out / 'a.txt'), SHIFT)  # every digit
    rows = list(csv.DictReader((out / 'registrations.csv').open()))
    assert [row['file'] for row in rows] == ['a.txt', '']
    assert (rows[0]['matches'], rows[0]['inliers']) == ('3', '2')
    assert rows[1]['failure'].startswith('3 matches')


def test_translations(tmp_path):
    options = dict(out_dir=str(tmp_path / 'out'), dtype='uint8')
    run('Translation', sample('a.tif', values=254.6), sample('b.tif', values=-9), **options)
    for name, value in (('a', 255), ('b', 0)):
        with rasterio.open(tmp_path / 'out' / f'{name}.tif') as file:
            assert (file.read() == value).all() and file.count == 2
            assert file.crs.to_epsg() == 32618 and tuple(file.transform)[:3] == (0.5, 0, 100)
    with pytest.raises(DataError, match='not finite'):
        run('Translation', sample('a.tif', values=float('nan')), out_dir=str(tmp_path / 'nan'))
    with pytest.raises(ConfigError):
        METRICS.build(dict(type='mmrsfm.TranslationSubmission', dtype='int64'))


@pytest.mark.parametrize('kind', ['Registration', 'Translation'])
def test_images_of_one_name(kind, tmp_path):
    paths = ['/data/hill/opt/1.png', '/data/urban/opt/1.png']
    with pytest.raises(DataError, match='folders=1'):
        run(kind, *map(sample, paths), out_dir=str(tmp_path / 'flat'))
    run(kind, *map(sample, paths), out_dir=str(tmp_path / 'deep'), folders=2)
    written = {path.parent.relative_to(tmp_path) for path in tmp_path.rglob('deep/*/*/1.*')}
    assert sorted(map(str, written)) == ['deep/hill/opt', 'deep/urban/opt']
    # What is written anew takes the place of what was there.
    run(kind, sample(paths[0]), out_dir=str(tmp_path / 'deep'), folders=2)
    assert len(list(tmp_path.rglob('deep/*/*/1.*'))) == 1
    run(kind, sample('/1.png'), out_dir=str(tmp_path / 'root'), folders=2)
    assert len(list((tmp_path / 'root').glob('1.*'))) == 1
