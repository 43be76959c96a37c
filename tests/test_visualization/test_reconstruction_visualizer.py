# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of masked pretraining."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from PIL import Image

from mmrsfm.errors import ConfigError
from mmrsfm.registry import HOOKS, VISUALIZERS
from mmrsfm.visualization.reconstruction_visualizer import (
    arranged,
    draw_reconstructions,
    reconstruction_panels,
)


def reconstruction():
    ramp = torch.linspace(0, 1, 64).expand(64, 64)
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :32, :32] = True
    rgb = torch.stack([ramp, ramp.T, ramp])
    sar = ramp[None].clone()
    sar[:, :, 60:] = float('nan')
    return dict(
        rgb=dict(image=rgb, pred=rgb * 0 + 2.0, mask=mask),
        sar=dict(image=sar, pred=torch.zeros(1, 64, 64), mask=mask),
    )


def test_panels():
    panels = dict(reconstruction_panels(reconstruction()))
    assert list(panels) == [
        'rgb', 'rgb, masked', 'rgb, predicted', 'sar', 'sar, masked', 'sar, predicted'
    ]  # fmt: skip
    rgb, masked, predicted = list(panels.values())[:3]
    assert rgb[40, 63].tolist() == [255, rgb[40, 0, 1], 255]
    assert (masked[:32, :32] == 127).all()
    assert np.array_equal(masked[32:], rgb[32:])
    assert (predicted[:32, :32] == 255).all()  # brighter than anything in the image
    assert np.array_equal(predicted[:, 32:], rgb[:, 32:])
    whole = dict(reconstruction_panels(reconstruction(), paste=False))['rgb, predicted']
    assert (whole == 255).all()
    assert (panels['sar'][:, 60:] == (70, 0, 0)).all()
    # What is missing is painted.
    assert (panels['sar, predicted'][:, 60:] == 0).all()


def test_classes_and_chosen_bands():
    one = reconstruction()
    mask = one['rgb']['mask']
    truth = torch.zeros(1, 64, 64, dtype=torch.int64)
    truth[:, :, 32:] = 1
    truth[:, 60:] = -1
    pred = torch.full_like(truth, 2)
    found = dict(
        cover=dict(image=truth, pred=pred, mask=mask, classes=3),
        red=dict(one['rgb'], bands=(2, 1, 0)),
        grey=dict(one['rgb'], bands=(1,)),
    )
    panels = dict(reconstruction_panels(found))
    cover, predicted = panels['cover'], panels['cover, predicted']
    colours = [tuple(cover[0, 0]), tuple(cover[0, 63]), tuple(predicted[0, 0])]
    assert len(set(colours)) == 3
    assert (cover[60:] == (70, 0, 0)).all()
    # Hidden and missing places are painted, the rest is as it is.
    assert (predicted[:32, :32] == colours[2]).all()
    assert (predicted[60:] == colours[2]).all()
    assert np.array_equal(predicted[32:60], cover[32:60])
    rgb = dict(reconstruction_panels(one))['rgb']
    assert np.array_equal(panels['red'], rgb[..., ::-1])
    assert np.array_equal(panels['grey'], rgb[..., [1, 1, 1]])


def test_many_modalities_are_below_each_other():
    part = reconstruction()['rgb']
    row = arranged({'0': part})
    assert row.shape[1] > 2 * row.shape[0]
    assert arranged({str(number): part for number in range(5)}).shape == (
        5 * row.shape[0],
        *row.shape[1:],
    )


def test_weights_are_a_fourth_panel():
    one = dict(sar=reconstruction()['sar'])
    weight = torch.linspace(1, 2, 64).expand(1, 64, 64).clone()
    weight[..., 60:] = 0
    one['sar']['weight'] = weight
    title, panel = reconstruction_panels(one)[3]
    assert title == 'sar, weight 1.00 to 1.94'
    assert (panel[:, 0] == 0).all()
    assert (panel[:, 59] == 255).all()
    assert (panel[:, 60:] == (70, 0, 0)).all()
    one['sar']['weight'] = weight * 0
    assert (reconstruction_panels(one)[3][1] == (70, 0, 0)).all()


def test_nothing_valid_is_drawn():
    one = reconstruction()
    one['sar']['image'] = one['sar']['image'] * float('nan')
    assert (dict(reconstruction_panels(one))['sar'] == (70, 0, 0)).all()


def test_the_hook_draws_what_the_model_predicts(tmp_path):
    visualizer = VISUALIZERS.build(
        dict(type='mmrsfm.ReconstructionVisualizer', modalities=dict(rgb=3, sar=1), name='x')
    )
    hook = HOOKS.build(
        dict(type='mmrsfm.VisualizationHook', enable=True, out_dir=str(tmp_path / 'a'))
    )
    sample = DataSample(metainfo={'img_path': 'a/x.tif'})
    sample.set_field(reconstruction(), 'reconstruction', dtype=dict)
    runner = SimpleNamespace(visualizer=visualizer, iter=0)
    inputs = torch.rand(1, 4, 64, 64)
    hook.after_test_iter(runner, 0, {'inputs': inputs}, [sample])
    picture = Image.open(tmp_path / 'a' / '00000_x.png')
    assert picture.size[0] > 6 * 64
    with pytest.raises(ConfigError, match='no reconstruction'):
        hook.after_test_iter(runner, 0, {'inputs': inputs}, [DataSample()])


def test_several_samples_in_one_picture(tmp_path):
    path = draw_reconstructions(tmp_path / 'b.png', [reconstruction()] * 3, 'epoch 1', 'credit')
    assert Image.open(path).size[0] > 1000
