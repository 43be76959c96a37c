# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoders of MaRS' downstream tasks, and its height metric, against the reference."""

import pytest
import torch

from tests.parity import Fixture, assert_parity, parity_files

pytest.importorskip('mmseg')

from mmrsfm.evaluation import HeightMetric
from mmrsfm.layers.deconvolution import DeconvBlock, FusionBlock
from mmrsfm.models.segmentation import DeconvHead

BN = dict(type='BN')
# Every head of mmseg has this name for it.
RENAMED = {'final': 'conv_seg'}


def rename(key):
    first, _, rest = key.partition('.')
    return f'{RENAMED.get(first, first)}.{rest}'


def build(group, state):
    """The module that a group of the fixture holds, of the widths of its parameters."""
    if any(key.startswith('upsample_blocks.') for key in state):
        count = 1 + max(int(key.split('.')[1]) for key in state if key.startswith('upsample'))
        widths = [state[f'upsample_blocks.{n}.conv3.weight'].shape[0] for n in range(count)]
        fused = state.get('block.conv1.weight')
        first = state['upsample_blocks.0.conv1.weight'] if fused is None else fused
        return DeconvHead(
            in_channels=first.shape[1],
            block_channels=widths,
            fuse_channels=None if fused is None else fused.shape[0],
            num_classes=2,
            out_channels=state['final.weight'].shape[0],
            threshold=0.5,
        )
    if 'deconv2.weight' in state:
        weight = state['conv1.weight'], state['conv3.weight']
        return DeconvBlock(weight[0].shape[1], weight[1].shape[0], BN)
    if 'bn1.weight' in state:
        weight = state['conv1.weight']
        return FusionBlock(weight.shape[1], weight.shape[0], BN)
    raise AssertionError(f'{group}: a module that no test knows')


@pytest.mark.parametrize('path', parity_files('mars_heads_*.npz'))
def test_parity_mars_heads(path):
    fixture = Fixture(path)
    groups = sorted({name.split('/')[0] for name in fixture.arrays})
    for group in groups:
        if f'{group}/pred' in fixture:
            check_metric(fixture, group)
            continue
        state = fixture.group(f'{group}/sd')
        module = build(group, state).eval()
        if isinstance(module, DeconvHead):
            state = {rename(key): value for key, value in state.items()}
        module.load_state_dict(state)
        inputs = [fixture.tensor(f'{group}/in{n}') for n in range(2) if f'{group}/in{n}' in fixture]
        joined = torch.cat(inputs, dim=1)
        with torch.no_grad():
            out = module([joined] if isinstance(module, DeconvHead) else joined)
        assert_parity(out, fixture.tensor(f'{group}/out'), group)
    assert fixture.unused == []


def check_metric(fixture, group):
    metric = HeightMetric()
    samples = [
        {'img_path': 'x', 'pred_depth_map': {'data': p[None]}, 'gt_depth_map': {'data': t[None]}}
        for p, t in zip(
            fixture.tensor(f'{group}/pred'), fixture.tensor(f'{group}/target'), strict=True
        )
    ]
    for sample in samples:  # a batch each: the numbers are those of all images
        metric.process({}, [sample])
    found = {key.lower(): value for key, value in metric.evaluate(len(samples)).items()}
    for name in [name for name in fixture.arrays if name.startswith(f'{group}/')]:
        key = name.split('/')[1]
        if key not in ('pred', 'target'):
            assert_parity(found[key], fixture.tensor(name), name)
