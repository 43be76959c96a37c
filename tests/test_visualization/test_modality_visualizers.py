# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of registrations and translations."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from PIL import Image

from mmrsfm.errors import ConfigError
from mmrsfm.registry import VISUALIZERS

MODALITIES = dict(rgb=3, sar=1)


def registered(found=True):
    sample = DataSample()
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, 2] = 10.0
    sample.set_field(shift if found else torch.eye(3, dtype=torch.float64), 'pred_homography')
    sample.set_field(found, 'registered')
    points = torch.tensor([[5.0, 5.0], [20.0, 30.0]] if found else []).reshape(-1, 2)
    matches = InstanceData(
        source=points,
        target=points + 10,
        confidence=torch.ones(len(points)),
        inlier=torch.tensor([True, False][: len(points)]),
    )
    sample.set_field(matches, 'pred_matches')
    return sample


def test_registration():
    visualizer = VISUALIZERS.build(
        dict(
            type='mmrsfm.RegistrationVisualizer',
            name='registration',
            modalities=MODALITIES,
            tiles=2,
        )
    )
    image = np.zeros((100, 100, 4), np.uint8)
    image[:, 50:, :3] = 255
    image[:, 60:, 3] = 255  # the edge is ten pixels further right
    picture = visualizer.draw(dict(img=image), registered())
    assert picture.shape == (18 + 200, 4 * 200 + 3 * 4, 3)
    first, second, before, after = (picture[18:, at : at + 200] for at in (0, 204, 408, 612))
    for panel, colour in ((first, (60, 220, 60)), (second, (60, 220, 60)), (first, (240, 60, 60))):
        assert (np.abs(panel.astype(int) - colour).max(2) < 30).any()
    # Lower half, left of the new edge: black beside white before, one edge after it.
    rows = slice(20, 80), slice(120, 180)
    edges = [
        [int((panel[part, 104:116] > 128).all(2).sum()) for part in rows]
        for panel in (before, after)
    ]
    assert edges[0][0] != edges[0][1] and edges[1][0] == edges[1][1]
    nothing = visualizer.draw(dict(img=image), registered(found=False))
    assert nothing.shape == picture.shape
    with pytest.raises(ConfigError):
        VISUALIZERS.build(
            dict(type='mmrsfm.RegistrationVisualizer', name='wrong', modalities=dict(rgb=3))
        )


def test_translation(tmp_path):
    visualizer = VISUALIZERS.build(
        dict(
            type='mmrsfm.TranslationVisualizer',
            name='translation',
            modalities=MODALITIES,
            source='sar',
            target='rgb',
        )
    )
    image = np.full((40, 50, 4), 100, np.uint8)
    sample = DataSample()
    sample.set_field(torch.full((3, 40, 50), 50.0), 'pred_image')
    truth = torch.full((3, 40, 50), 50.0)
    truth[:, :20] = 200
    sample.set_field(truth, 'gt_image')
    valid = torch.ones(40, 50, dtype=torch.bool)
    valid[30:] = False
    sample.set_field(valid, 'image_valid')
    visualizer.add_multi_band('x', dict(img=image), sample, out_file=str(tmp_path / 'a' / 'x.png'))
    picture = np.asarray(Image.open(tmp_path / 'a' / 'x.png'))
    assert picture.shape == (18 + 200, 3 * 250 + 2 * 4, 3)
    predicted, true = picture[18:, 254:504], picture[18:, 508:758]
    assert (predicted[110] == true[110]).all()  # the same value, the same colour
    assert true[50, 5].min() > predicted[50, 5].max()
    assert true[195, 5, 0] > true[195, 5, 1]  # invalid: red
    del sample.gt_image
    assert visualizer.draw(dict(img=image), sample).shape[1] == 2 * 250 + 4
    with pytest.raises(ConfigError):
        VISUALIZERS.build(
            dict(
                type='mmrsfm.TranslationVisualizer',
                name='wrong translation',
                modalities=MODALITIES,
                source='x',
                target='rgb',
            )
        )
