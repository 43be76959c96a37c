# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""HeightMetric and the writers of heights, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config
from rasterio.transform import from_origin

from mmrsfm.engine.run_config import set_output_folder
from mmrsfm.errors import ConfigError, DataError, ImageSizeError
from mmrsfm.evaluation import HeightMapSubmission, HeightMetric

NAN = float('nan')


def sample(predicted, target=None, path='a.tif'):
    data = {'img_path': str(path), 'pred_depth_map': {'data': torch.tensor([predicted])}}
    if target is not None:
        data['gt_depth_map'] = {'data': torch.tensor([target])}
    return data


def evaluate(*samples, **options):
    metric = HeightMetric(**options)
    for one in samples:  # a batch each
        metric.process({}, [one])
    return metric.evaluate(len(samples))


FIRST = sample([[10.0, 6.0], [1.0, 3.0]], [[8.0, 4.0], [0.0, NAN]])
SECOND = sample([[5.0]], [[-1.0]])  # an image of another size, below the ground


def test_all_images_count_and_each_pixel_alike():
    found = evaluate(FIRST, SECOND, floor=None)
    errors = [2, 2, 1, 6]
    assert found['MAE'] == pytest.approx(sum(errors) / 4)
    assert found['MSE'] == pytest.approx(sum(e * e for e in errors) / 4)
    assert found['RMSE'] == pytest.approx(math.sqrt(found['MSE']))
    # 10 / 8 is not below 1.25; 6 / 4 is below 1.25^2; the ground is never near.
    assert [found[f'delta{n}'] for n in (1, 2, 3)] == [0, 0.5, 0.5]


def test_ground_may_be_left_out():
    outside = evaluate(FIRST, SECOND, floor=None, ground='exclude_from_delta')
    assert outside['MAE'] == pytest.approx(11 / 4)
    assert [outside[f'delta{n}'] for n in (1, 2, 3)] == [0, 1, 1]
    without = evaluate(FIRST, SECOND, ground='exclude')
    assert without['MAE'] == pytest.approx(2)
    above = evaluate(FIRST, ground='exclude', ground_height=4.0)
    assert above['MAE'] == pytest.approx(2)
    assert above['delta1'] == 0


def test_floor_and_range():
    below = sample([[-3.0, 1.0]], [[0.0, 1000.0]])
    assert evaluate(below, valid_range=(0, 200))['MAE'] == 0
    assert evaluate(below, valid_range=(0, 200))['delta1'] == 1
    assert evaluate(below, valid_range=(0, 200), floor=None)['MAE'] == 3


def test_samples_that_fill_the_ranks_are_dropped():
    metric = HeightMetric()
    for one in (FIRST, SECOND, FIRST):  # the sampler began again
        metric.process({}, [one])
    assert metric.evaluate(2) == evaluate(FIRST, SECOND)


def test_nothing_to_compare():
    found = evaluate(sample([[1.0]], [[NAN]]))
    assert all(math.isnan(value) for value in found.values())


def test_what_is_wrong():
    for options in (
        dict(ground='none'),
        dict(floor=0.0),
        dict(valid_range=(3, 3)),
    ):
        with pytest.raises(ConfigError):
            HeightMetric(**options)
    with pytest.raises(ConfigError, match='no heights'):
        evaluate(sample([[1.0]]))
    with pytest.raises(ImageSizeError):
        evaluate(sample([[1.0, 2.0]], [[1.0]]))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'P_1.tif'
    with rasterio.open(
        path, 'w', driver='GTiff', width=2, height=2, count=3, dtype='uint8', crs='EPSG:32618',
        transform=from_origin(500000, 4000000, 0.5, 0.5),
    ) as out:  # fmt: skip
        out.write(np.zeros((3, 2, 2), np.uint8))
    return path


def test_maps_are_written_on_the_grid_of_the_image(image, tmp_path):
    heights = [[1.5, -2.25], [0.0, 183.125]]
    one = sample(heights, heights, image)
    evaluate(one, output_dir=str(tmp_path / 'metric'))
    writer = HeightMapSubmission(out_dir=str(tmp_path / 'writer'))
    writer.process({}, [one])
    assert writer.evaluate(1) == {'height_maps/images': 1}
    for folder in ('metric', 'writer'):
        with rasterio.open(tmp_path / folder / 'P_1.tif') as written:
            assert written.dtypes == ('float32',)
            assert written.crs.to_epsg() == 32618
            assert written.transform == from_origin(500000, 4000000, 0.5, 0.5)
            np.testing.assert_array_equal(written.read(1), heights)
    with pytest.raises(DataError, match='overwrite'):
        other = tmp_path / 'other' / 'P_1.tif'
        evaluate(one, sample(heights, heights, other), output_dir=str(tmp_path / 'metric'))
    with pytest.raises(DataError):
        HeightMapSubmission(out_dir=str(tmp_path / 'x')).process({}, [sample([[NAN]], path=image)])


def test_tools_hand_the_folder_over():
    cfg = Config(dict(default_scope='mmseg', test_evaluator=dict(type='mmrsfm.HeightMetric')))
    set_output_folder(cfg, '/tmp/heights')
    assert HeightMetric(**{k: v for k, v in cfg.test_evaluator.items() if k != 'type'})
    assert cfg.test_evaluator.output_dir == '/tmp/heights'
