# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""UNetHead against the reference: blocks, logits, predictions and losses, to 1e-5."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from tests.parity import Fixture, assert_parity, parity_files


@pytest.mark.filterwarnings('ignore:For binary segmentation')
@pytest.mark.parametrize('path', parity_files('unet_head_*.npz'))
@pytest.mark.parametrize('name', ['mmrsfm.UNetHead', 'opencd.UNetHead'])
def test_parity_unet_head(path, name):
    fixture = Fixture(path)
    meta = fixture.json('meta_json')
    init_default_scope('mmseg')
    head = MODELS.build({'type': name, **fixture.json()})
    head.load_state_dict(fixture.group('sd'))  # strictly: the released names
    head.train(meta.get('mode', 'eval') == 'train')
    blocks = {}
    for index, block in enumerate(head.blocks):
        block.register_forward_hook(
            lambda module, inputs, output, index=index: blocks.update({f'block{index}': output})
        )
    maps = fixture.group('input')
    inputs = tuple(maps[str(index)] for index in range(len(maps)))
    image_shape = tuple(meta['img_shape'])
    metas = [{'img_shape': image_shape, 'ori_shape': image_shape}] * len(inputs[0])
    labels = fixture.tensor('label').long()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    with torch.no_grad():
        logits = head(inputs)
        ours = {f'mid/{key}': value for key, value in blocks.items()}
        ours['out/logits'] = logits
        ours['out/predict'] = head.predict(inputs, metas, {})
        ours |= {f'out/{key}': value for key, value in head.loss(inputs, samples, {}).items()}
    for key in [key for key in fixture.arrays if key.startswith(('mid/', 'out/'))]:
        assert_parity(ours[key], fixture.tensor(key), key)
    assert fixture.unused == []
