# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pair classifier of SAR-W-MixMAE on SEN12-FLOOD against arrays that the reference computed."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmrsfm.datasets.transforms import LoadImagePair, ScaleSAR
from mmrsfm.models.classifiers import PairClassifier
from tests.parity import Fixture, assert_parity, parity_files

MEAN, STD = (-19.2309, -12.5951), (3.1672, 2.9644)  # of version 1


def renamed(state):
    """To mmpretrain's names and order, as the facts say (sar_w_mixmae.md 1b), not our converter."""
    found = {}
    for name, value in state.items():
        if '.downsample.' in name:
            groups = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
            value = groups.transpose(-1, -2).flatten(-2)
        for theirs, ours in (
            ('patch_embed.proj.', 'patch_embed.projection.'), ('mlp.fc1', 'ffn.layers.0.0'),
            ('mlp.fc2', 'ffn.layers.1'),
        ):  # fmt: skip
            name = name.replace(theirs, ours)
        name = re.sub(r'(blocks\.\d+)\.norm([12])', r'\1.ln\2', name)
        name = f'head.fc.{name[5:]}' if name.startswith('head.') else f'backbone.{name}'
        if not name.endswith('relative_position_index'):
            found[name] = value
    return found


@pytest.mark.parametrize('path', parity_files('sarw_finetune_*.npz'))
def test_parity_sen12_pairs(path, tmp_path):
    fixture = Fixture(path)
    kwargs = fixture.json('meta')['sen12_kwargs']
    weights = renamed(fixture.group('sen12/sd'))
    pair = [fixture.tensor('sen12/in/x1'), fixture.tensor('sen12/in/x2')]
    label = fixture.tensor('sen12/in/label')
    for legacy, out in ((True, 'sen12/out'), (False, 'sen12/out_fixed_tiling')):
        for reduction in ('avg', 'max'):
            model = PairClassifier(
                dict(
                    type='mmrsfm.MixMIM', img_size=kwargs['img_size'],
                    arch=dict(
                        embed_dims=kwargs['embed_dim'], depths=kwargs['depths'],
                        num_heads=kwargs['num_heads'],
                    ),
                    in_channels=kwargs['in_chans'], window_size=kwargs['window_size'],
                ),
                head=dict(
                    type='mmpretrain.LinearClsHead', num_classes=kwargs['num_classes'],
                    in_channels=8 * kwargs['embed_dim'],
                ),
                tile_size=kwargs['img_size'], tile_reduction=reduction, legacy_tiling=legacy,
                data_preprocessor=dict(type='mmrsfm.MultiBandDataPreprocessor'),
            ).eval()  # fmt: skip
            missing, unexpected = model.load_state_dict(weights, strict=False)
            assert not unexpected
            assert all(name.endswith('relative_position_index') for name in missing), missing
            with torch.no_grad():
                for number in (1, 2):
                    name = f'{out}/feat{number}'
                    if name in fixture:
                        ours = model.tile_features(pair[number - 1])
                        assert_parity(ours, fixture.tensor(name), name)
                logits = model(pair)
            assert_parity(logits, fixture.tensor(f'{out}/logits_{reduction}'), f'{out} {reduction}')
            if legacy and reduction == 'avg':
                loss = F.cross_entropy(logits.double(), label)
                assert_parity(loss, fixture.tensor('sen12/loss_ce_avg'), 'loss')
    # From power to what the model sees, through the transforms of the config.
    power = fixture.tensor('sen12/in/lin1_img0_corner')[0].numpy()
    np.save(tmp_path / 'pair.npy', np.stack([power, power]))
    sample = LoadImagePair(band_names=['VH', 'VV']).transform({'img_path': tmp_path / 'pair.npy'})
    decibels = ScaleSAR(
        method='db', quantity='power', channels=[0, 1, 2, 3], limits=None, percentiles=None,
        out_range=None,
    ).transform(sample)['img']  # fmt: skip
    normalised = (decibels[..., :2] - np.float32(MEAN)) / np.float32(STD)
    wanted = fixture.tensor('sen12/in/x1_img0_corner')[0]
    assert_parity(normalised.transpose(2, 0, 1).copy(), wanted, 'decibels')
    unused = [name for name in fixture.unused if name.startswith('sen12/')]
    assert not unused
