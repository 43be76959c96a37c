# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of heights: what is there is drawn."""

import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image

from mmrsfm.visualization.height_visualizer import draw_heights


def test_panels_and_missing_heights():
    image = np.zeros((20, 30, 3), np.uint8)
    heights = np.linspace(0, 50, 600, dtype=np.float32).reshape(20, 30)
    heights[:5] = np.nan
    widths = [
        draw_heights(image, *maps).shape[1]
        for maps in ((), (heights,), (heights, np.zeros((20, 30), np.float32)))
    ]
    assert widths[1] == pytest.approx(2 * widths[0], abs=4)
    assert widths[2] == pytest.approx(4 * widths[0], abs=8)
    assert draw_heights(image, np.full((4, 4), np.nan)).dtype == np.uint8


def test_a_sample_goes_to_a_file(tmp_path):
    visualizer = VISUALIZERS.build(dict(type='mmrsfm.HeightVisualizer', name='heights'))
    sample = BaseDataElement()
    for key in ('gt_depth_map', 'pred_depth_map'):
        sample.set_data({key: PixelData(data=torch.rand(1, 8, 8))})
    image = np.full((8, 8, 3), 200, np.uint8)
    path = tmp_path / 'new' / 'a.png'
    visualizer.add_datasample('a', image, sample, out_file=str(path))
    everything = np.asarray(Image.open(path))
    visualizer.add_datasample('a', image, sample, draw_gt=False, out_file=str(path))
    assert np.asarray(Image.open(path)).shape[1] < everything.shape[1]
