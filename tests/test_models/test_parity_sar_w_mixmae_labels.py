# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The multi-label classifier of SAR-W-MixMAE against arrays that the reference computed."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample

from mmrsfm.checkpoints import load_pretrained
from mmrsfm.engine.run_config import register_scope
from tests.parity import REPO, Fixture, assert_parity, parity_files

MEAN, STD = (-19.1966, -12.5144), (5.4501, 5.0019)  # of version 2
TASK = REPO / 'configs' / '_base_' / 'tasks' / '8xb128-coslr-50e_bigearthnetv2-s1-128px.py'


def build(kwargs):
    """The model of the config, as large as that of the fixture."""
    register_scope('mmpretrain')
    config = Config.fromfile(TASK)
    config.model.backbone = dict(
        type='mmrsfm.MixMIM',
        arch=dict(
            embed_dims=kwargs['embed_dim'], depths=kwargs['depths'], num_heads=kwargs['num_heads']
        ),
        img_size=kwargs['img_size'],
        in_channels=kwargs['in_chans'],
        window_size=kwargs['window_size'],
    )
    assert config.model.head.num_classes == kwargs['num_classes']
    config.model.head.in_channels = 8 * kwargs['embed_dim']
    config.model.data_preprocessor = config.data_preprocessor
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config.model).eval()


@pytest.mark.parametrize('path', parity_files('sarw_finetune_*.npz'))
def test_parity_multi_label(path, tmp_path):
    fixture = Fixture(path)
    model = build(fixture.json('meta')['ml_kwargs'])
    torch.save({'model': fixture.group('ml/sd')}, tmp_path / 'finetuned.pth')
    load_pretrained(model, tmp_path / 'finetuned.pth')
    decibels, target = fixture.tensor('ml/in/db'), fixture.tensor('ml/in/target')
    samples = []
    for labels in target:
        sample = DataSample().set_gt_label(labels.nonzero().flatten())
        sample.set_field(('VH', 'VV'), 'band_names', field_type='metainfo')
        samples.append(sample)
    batch = model.data_preprocessor({'inputs': decibels, 'data_samples': samples})
    assert_parity(batch['inputs'], fixture.tensor('ml/in/x'), 'normalised')
    x = fixture.tensor('ml/in/x')
    with torch.no_grad():
        assert_parity(model.extract_feat(x)[-1], fixture.tensor('ml/out/feat'), 'features')
        assert_parity(model(x), fixture.tensor('ml/out/logits'), 'logits')
        (loss,) = model.loss(x, samples).values()
        assert_parity(loss, fixture.tensor('ml/loss'), 'loss')
        scores = torch.stack([one.pred_score for one in model.predict(x, samples)])
        assert_parity(scores, fixture.tensor('ml/out/logits').sigmoid(), 'scores')
    assert not [name for name in fixture.unused if name.startswith('ml/')]
