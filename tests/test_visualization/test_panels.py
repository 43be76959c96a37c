# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import cv2
import numpy as np

from mmrsfm.visualization.panels import colourise, draw_panels, stretch


def test_stretch_uses_each_band_and_blackens_what_is_not_finite():
    image = np.stack([np.arange(100.0).reshape(10, 10) * s for s in (1, 50, 1e-4)], -1)
    image[0, 0, 1] = np.nan
    out = stretch(image, percentiles=(0, 100))
    assert out.dtype == np.uint8
    assert out[-1, -1].tolist() == [255, 255, 255]
    assert out[0, 0].tolist() == [0, 0, 0]
    assert abs(int(out[5, 0, 0]) - int(out[5, 0, 2])) <= 1


def test_constant_band_does_not_divide_by_zero():
    assert (stretch(np.full((4, 4, 3), 7.0)) == 0).all()


def test_colourise_unknown_classes_are_white():
    out = colourise(np.array([[0, 1, 255]]), [[1, 2, 3], [4, 5, 6]])
    assert out.tolist() == [[[1, 2, 3], [4, 5, 6], [255, 255, 255]]]


def test_panels_of_wide_and_of_square_images(tmp_path):
    for shape, taller in (((20, 100, 3), True), ((50, 50, 3), False)):
        image = np.full(shape, 128, np.uint8)
        panels = [(f'panel {n}', image) for n in range(4)]
        path = draw_panels(tmp_path / 'out' / 'p.png', panels, [('a', (255, 0, 0))], 'caption')
        picture = cv2.imread(str(path))
        assert (picture.shape[0] > 0.8 * picture.shape[1]) == taller
        assert (picture == [0, 0, 255]).all(-1).any()
