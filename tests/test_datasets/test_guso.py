# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GUSO, its homographies, and displacements that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrsfm.datasets.guso import read_homography
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError, ImageSizeError
from mmrsfm.registry import DATASETS, TRANSFORMS
from mmrsfm.utils.homography import warp_points
from tests.formats import make_guso

MATRIX = np.array([[1.0, 0.1, 3], [-0.1, 1, 2], [1e-5, 0, 1]])


def sample(size=64, dtype=np.float32, index=7):
    """Both modalities know their place: x and y of the first, the sum in the second."""
    rows, columns = np.indices((size, size)).astype(dtype)
    image = np.stack([columns, rows, columns + 2 * rows], axis=2)
    return dict(img=image, modalities=dict(rgb=2, sar=1), sample_idx=index)


def warp(**options):
    return TRANSFORMS.build(dict(type='mmrsfm.RandomHomography', **options))


@pytest.mark.parametrize('size', [None, 48, (40, 56)])
@pytest.mark.parametrize('perspective', [0.0, 0.05])
def test_the_homography_says_where_pixels_went(size, perspective):
    before = sample()
    results = warp(
        rotation=20, scale=(0.8, 1.2), shift=0.1, perspective=perspective, size=size, seed=1
    )(sample())
    after, valid, homography = results['img'], results['valid_mask'], results['homography']
    height, width = after.shape[:2]
    assert results['img_shape'] == (height, width)
    assert valid[..., :2].all()  # the others stay
    top, left = (64 - height) // 2, (64 - width) // 2
    np.testing.assert_array_equal(
        after[..., :2], before['img'][top : top + height, left : left + width, :2]
    )
    points = torch.stack(
        torch.meshgrid(torch.arange(width), torch.arange(height), indexing='xy'), -1
    ).double()
    # Where the pixels of the moved image come from, in the image that stayed.
    origin = warp_points(points, torch.linalg.inv(torch.from_numpy(homography))).numpy()
    expected = (origin[..., 0] + left) + 2 * (origin[..., 1] + top)
    good = valid[..., 2]
    assert 0.3 < good.mean() <= 1
    np.testing.assert_allclose(after[..., 2][good], expected[good], atol=0.2)


def test_draws_have_an_address():
    one = warp(seed=3)
    first, again = one(sample())['homography'], one(sample())['homography']
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, one(sample(index=8))['homography'])
    assert not np.allclose(first, warp(seed=4)(sample())['homography'])
    anew = warp()
    np.random.seed(0)
    a, b = anew(sample())['homography'], anew(sample())['homography']
    np.random.seed(0)
    np.testing.assert_array_equal(a, anew(sample())['homography'])
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(warp(prob=0.0)(sample())['homography'], np.eye(3))


def test_what_is_known_already_is_composed():
    data = sample()
    data['homography'] = MATRIX
    results = warp(prob=0.0, size=32)(data)
    inside = np.array([[1, 0, -16], [0, 1, -16], [0, 0, 1.0]])
    expected = inside @ MATRIX @ np.linalg.inv(inside)
    np.testing.assert_allclose(results['homography'], expected / expected[2, 2])


def test_missing_data_move_along_and_types_stay():
    data = sample(dtype=np.uint16)
    data['valid_mask'] = np.ones((64, 64, 3), bool)
    data['valid_mask'][20:30, 20:30, 2] = False
    data['img'][20:30, 20:30, 2] = 60000
    results = warp(rotation=0, scale=(1, 1), shift=0.1, seed=0)(data)
    assert results['img'].dtype == np.uint16
    moved = results['img'][..., 2][results['valid_mask'][..., 2]]
    assert moved.max() < 200  # nothing of the 60000 has leaked
    x, y = (results['homography'][:2, 2] + 25).round().astype(int)
    assert not results['valid_mask'][y, x, 2]
    assert results['valid_mask'][..., :2].all()


def test_wrong_limits_and_samples():
    for wrong in (
        dict(scale=(0, 1)), dict(scale=(2, 1)), dict(rotation=200), dict(shift=-1),
        dict(perspective=0.5),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            warp(**wrong)
    with pytest.raises(ConfigError, match='none of'):
        warp(moving='dem')(sample())
    with pytest.raises(ConfigError, match='LoadModalities'):
        warp()({**sample(), 'modalities': None})
    with pytest.raises(ConfigError, match='sample_idx'):
        warp(seed=0)({**sample(), 'sample_idx': None})
    with pytest.raises(ImageSizeError):
        warp(size=100)(sample())


def test_guso_with_homographies(tmp_path):
    data = make_guso(tmp_path, count=1, size=64)
    names = [next((data / part / 'opt').iterdir()).stem for part in ('urban-test', 'urban-val')]
    for part, name in zip(('urban-test', 'urban-val'), names, strict=True):
        folder = data / part / 'truth'
        folder.mkdir()
        np.savetxt(folder / f'{name}.txt', MATRIX)
    options = dict(type='mmrsfm.GUSODataset', data_root=str(data))
    dataset = DATASETS.build(
        dict(
            parts=['urban-test', 'urban-val'],
            homography_dir='truth',
            pipeline=[
                dict(type='mmrsfm.LoadModalities', modalities=dict(rgb=3, sar=1)),
                dict(type='mmrsfm.PackInputs', algorithm_keys=('homography',)),
            ],
            **options,
        )
    )
    assert len(dataset) == 2
    packed = dataset[1]
    assert packed['inputs'].shape == (4, 64, 64)
    np.testing.assert_allclose(packed['data_samples'].homography, MATRIX)
    (data / 'urban-val' / 'truth' / f'{names[1]}.txt').unlink()
    with pytest.raises(DatasetNotFoundError, match='no such homography'):
        dataset.get_data_info(1)
    everything = DATASETS.build(dict(parts='*', **options))
    parts = {Path(everything.get_data_info(n)['img_path']).parts[-3] for n in range(4)}
    assert len(everything) == 4 and 'disaster-test' in parts
    assert 'homography' not in everything.get_data_info(0)
    plain = DATASETS.build(dict(type='mmrsfm.GUSODataset', data_root=str(data / 'urban-val')))
    assert len(plain) == 1
    with pytest.raises(DatasetNotFoundError, match='terrain'):
        DATASETS.build(dict(parts='hill-*', **options))


def test_homography_files(tmp_path):
    np.save(tmp_path / 'a.npy', MATRIX)
    (tmp_path / 'a.json').write_text(json.dumps(MATRIX[:2].tolist()))
    (tmp_path / 'a.txt').write_text('1, 0.1, 3\n-0.1, 1, 2\n0.00001, 0, 1\n')
    for suffix in ('npy', 'txt'):
        np.testing.assert_allclose(read_homography(tmp_path / f'a.{suffix}'), MATRIX)
    assert read_homography(tmp_path / 'a.json')[2].tolist() == [0, 0, 1]
    for text in ('', '1 2 3', 'one two three', '0 0 0\n0 0 0\n0 0 0', '1 2 3 4'):
        (tmp_path / 'b.txt').write_text(text)
        with pytest.raises(DataError, match=r'b\.txt'):
            read_homography(tmp_path / 'b.txt')
