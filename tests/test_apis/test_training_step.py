# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A training step of any config, outside a Runner."""

import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config
from torch import nn

from mmrsfm.apis.training_step import (
    PARTS,
    TrainingStep,
    infer_input_shape,
    random_batch,
    real_batches,
)
from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.utils.resource_use import peak_memory

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
BACKBONE = dict(type='mmrsfm.CrossScaleViT', arch=ARCH, img_size=32, patch_size=16, in_channels=4)
PREPROCESSOR = dict(
    type='mmrsfm.MultiBandDataPreprocessor', mean=[5.0] * 4, std=[2.0] * 4, scale=1.0
)
OPTIM = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))


def classifier(**changes):
    cfg = dict(
        default_scope='mmpretrain',
        custom_imports=dict(imports=['mmrsfm']),
        model=dict(
            type='ImageClassifier',
            backbone=dict(BACKBONE, out_type='avg_featmap'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
            data_preprocessor=PREPROCESSOR,
        ),
        optim_wrapper=OPTIM,
    )
    return Config({**cfg, **changes})


def pretraining():
    cfg = classifier()
    cfg.model = dict(
        type='mmrsfm.CrossScaleMAE',
        backbone=BACKBONE,
        neck=dict(
            type='mmrsfm.CrossScaleMAEDecoder',
            img_size=32,
            patch_size=16,
            in_chans=4,
            embed_dim=16,
            decoder_embed_dim=16,
            decoder_depth=1,
            decoder_num_heads=2,
        ),
        predictor=dict(hidden_channels=16),
        data_preprocessor=PREPROCESSOR,
    )
    return cfg


def segmentor():
    cfg = classifier(default_scope='mmseg')
    cfg.model = dict(
        type='EncoderDecoder',
        backbone=dict(BACKBONE, out_type='featmap'),
        decode_head=dict(
            type='FCNHead',
            in_channels=16,
            channels=8,
            num_convs=1,
            num_classes=5,
            norm_cfg=dict(type='BN'),
        ),
        data_preprocessor=dict(
            type='mmrsfm.MultiBandSegDataPreprocessor', mean=[5.0] * 4, std=[2.0] * 4, size=(32, 32)
        ),
    )
    return cfg


@pytest.mark.parametrize('make', [classifier, pretraining, segmentor])
def test_a_step_of_each_task_with_random_data(make):
    step = TrainingStep(make(), batch_size=2, data='auto')
    assert step.data == 'random'
    assert 'no train_dataloader' in step.note
    before = [p.detach().clone() for p in step.model.parameters() if p.requires_grad]
    times = step.run()
    assert tuple(times) == PARTS
    assert times['step'] == pytest.approx(sum(times[part] for part in PARTS[:-1]))
    after = [p for p in step.model.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    step.run()  # the batch is unharmed


def test_random_images_look_like_the_data():
    model = TrainingStep(classifier(), batch_size=1).model
    batch = random_batch(model, 8, (4, 32, 32))
    assert batch['inputs'].shape == (8, 4, 32, 32)
    assert batch['inputs'].mean().item() == pytest.approx(5, abs=0.1)
    assert batch['inputs'].std().item() == pytest.approx(2, abs=0.1)
    again = random_batch(model, 8, (4, 32, 32))
    assert torch.equal(batch['inputs'], again['inputs'])


def test_no_checkpoint_is_read():
    cfg = classifier()
    cfg.model.backbone.init_cfg = dict(type='mmrsfm.Pretrained', checkpoint='not/there.pth')
    TrainingStep(cfg, batch_size=1).run()
    assert cfg.model.backbone.init_cfg is not None


def test_mixed_precision_is_chosen_on_the_command_line_only():
    cfg = classifier(optim_wrapper=dict(OPTIM, type='AmpOptimWrapper', loss_scale='dynamic'))
    assert type(TrainingStep(cfg, batch_size=1).optim_wrapper).__name__ == 'OptimWrapper'
    step = TrainingStep(cfg, batch_size=1, amp=True)
    assert type(step.optim_wrapper).__name__ in ('BF16OptimWrapper', 'AmpOptimWrapper')
    if not torch.cuda.is_available():
        step.run()


def scene_loader(root):
    pipeline = [dict(type='mmrsfm.LoadMultiBandImage'), dict(type='mmrsfm.PackInputs')]
    return dict(
        batch_size=4,
        num_workers=0,
        drop_last=True,
        sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
        dataset=dict(type='mmrsfm.SceneFolderDataset', data_root=str(root), pipeline=pipeline),
    )


def test_real_data_come_from_the_loader_of_the_config(tmp_path):
    for name in ('a', 'b', 'c'):
        (tmp_path / name).mkdir()
        for number in range(3):
            image = np.random.rand(32, 32, 4).astype(np.float32)
            path = tmp_path / name / f'{number}.tif'
            tifffile.imwrite(path, image, photometric='minisblack', planarconfig='contig')
    cfg = classifier(train_dataloader=scene_loader(tmp_path))
    step = TrainingStep(cfg, batch_size=2)
    assert (step.data, step.batch_size, step.note) == ('real', 2, '')
    for _ in range(6):  # more than an epoch of four batches
        assert step.run()['data_wait'] > 0
    assert TrainingStep(cfg, data='random').batch_size == 4


def test_batches_of_several_data_sets_have_images_of_each(tmp_path):
    for part in ('one', 'two'):
        for name in ('a', 'b'):
            (tmp_path / part / name).mkdir(parents=True)
            image = np.zeros((32, 32, 4), np.float32)
            path = tmp_path / part / name / '0.tif'
            tifffile.imwrite(path, image, photometric='minisblack', planarconfig='contig')
    loader = scene_loader(tmp_path / 'one')
    parts = [scene_loader(tmp_path / part)['dataset'] for part in ('one', 'two')]
    loader['dataset'] = dict(type='mmrsfm.MultiDataset', datasets=parts, names=['one', 'two'])
    loader['sampler'] = dict(type='mmrsfm.MultiDatasetSampler', ratios='avg')
    batch = next(real_batches(loader, 2))
    assert sorted(sample.dataset_name for sample in batch['data_samples']) == ['one', 'two']


def test_absent_data_are_an_error_only_where_they_are_wanted(tmp_path):
    cfg = classifier(train_dataloader=scene_loader(tmp_path / 'nowhere'))
    with pytest.raises(DatasetNotFoundError):
        TrainingStep(cfg, data='real')
    step = TrainingStep(cfg, data='auto')
    assert step.data == 'random'
    assert 'nowhere' in step.note


def test_the_input_shape_follows_the_config():
    cfg = classifier()
    model = nn.Module()
    assert infer_input_shape(cfg, model) == (4, 32, 32)
    cfg.train_dataloader = dict(
        dataset=dict(pipeline=[dict(type='LoadX'), dict(type='RandomCrop', crop_size=(64, 48))])
    )
    assert infer_input_shape(cfg, model) == (4, 64, 48)
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline.append(dict(type='mmrsfm.DrawScaleCrop', scale=(0.25, 0.75)))
    assert infer_input_shape(cfg, model) == (4, 64, 48)
    cfg = Config(dict(model=dict(type='X')))
    with pytest.raises(ConfigError, match='--input-shape'):
        infer_input_shape(cfg, model)


def test_unknown_models_and_configs_without_training_are_refused():
    with pytest.raises(ConfigError, match='random data cannot be made for a Linear'):
        random_batch(nn.Linear(1, 1), 1, (1, 8, 8))
    cfg = classifier(optim_wrapper=None)
    with pytest.raises(ConfigError, match='no optim_wrapper'):
        TrainingStep(cfg)


def test_peak_memory_is_at_least_what_was_touched():
    before = peak_memory('cpu')
    block = torch.ones(64 * 2**20 // 4)
    assert peak_memory('cpu') >= max(before, block.numel() * 4)


def test_random_pairs(tmp_path):
    cfg = classifier()
    cfg.model.update(type='mmrsfm.PairClassifier', tile_size=32)
    with pytest.raises(ConfigError, match='--input-shape'):  # the backbone's size is a tile's
        TrainingStep(cfg, batch_size=2)
    step = TrainingStep(cfg, batch_size=2, input_shape=(4, 64, 64))
    batch = random_batch(step.model, 2, (4, 64, 64))
    assert [one.shape for one in batch['inputs']] == [(2, 4, 64, 64)] * 2
    assert set(step.run()) == set(PARTS)
