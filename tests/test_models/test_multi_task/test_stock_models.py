# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The multi-task model beside models that know nothing of it, and on other backbones."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from mmrsfm.checkpoints import describe_model
from mmrsfm.checkpoints.mtp_decoder import reuse_mtp_decoder
from mmrsfm.errors import ConfigError
from mmrsfm.randomness import derive_seed
from tests.test_models.test_multi_task import tiny
from tests.test_models.test_multi_task.tiny import sample

CLASSES = ('house', 'tree', 'ship')


def stock(task):
    """The fine-tuning model of a task library, of the same parts."""
    part = copy.deepcopy(tiny.decoders()[task])
    if task == 'semantic':
        head = dict(part['decode_head'], num_classes=len(CLASSES) + 1)
        return 'mmseg', dict(
            type='EncoderDecoder',
            backbone=tiny.BACKBONE,
            decode_head=head,
            test_cfg=dict(mode='whole'),
        )
    for head in ('bbox_head', 'mask_head'):
        if head in part['roi_head']:
            part['roi_head'][head]['num_classes'] = len(CLASSES)
    if task == 'instance':
        return 'mmdet', dict(part, type='MaskRCNN', backbone=tiny.BACKBONE)
    return 'mmrotate', dict(part, type='mmdet.FasterRCNN', backbone=tiny.BACKBONE)


def stock_losses(model, task, data):
    """What the library computes; the regions are chosen by the seeds of the images."""
    samples = data['data_samples']
    if task == 'semantic':
        losses = model.loss(data['inputs'], samples)
        return {name.removeprefix('decode.'): value for name, value in losses.items()}
    key = {'instance': 'gt_instances', 'rotated': 'r_gt_instances'}[task]
    stages = {}
    for stage in ('rpn', 'rcnn'):
        stages[stage] = copy.deepcopy(samples)
        for one in stages[stage]:
            truth = InstanceData(**dict(one.get(key).items()))
            if stage == 'rpn':
                truth.labels = torch.zeros_like(truth.labels)
            seed = derive_seed(one.sampling_seed, task, stage)
            truth.set_metainfo(dict(sampling_seed=seed))
            one.gt_instances = truth
    maps = model.extract_feat(data['inputs'])
    losses, proposals = model.rpn_head.loss_and_predict(
        maps, stages['rpn'], proposal_cfg=model.train_cfg.rpn_proposal
    )
    losses = {name if 'rpn' in name else f'rpn_{name}': one for name, one in losses.items()}
    return losses | model.roi_head.loss(maps, proposals, stages['rcnn'])


def total(value):
    return float(sum(one.detach().sum() for one in value) if isinstance(value, list) else value)


def test_losses_are_those_of_the_task_libraries():
    """A pretrained decoder in its fine-tuning model sees what it saw, to the last digit."""
    ours = tiny.build([dict(name='sota', classes=CLASSES)]).eval()
    items = [sample(seed=n, sampling_seed=n, objects=4) for n in (1, 2)]
    found = tiny.run(ours, items)[1]
    file = {'state_dict': ours.state_dict(), 'meta': describe_model(ours)}
    data = ours.data_preprocessor(tiny.collate(items), True)
    compared = 0
    for task in tiny.TASKS:
        scope, config = stock(task)
        init_default_scope(scope)
        model = MODELS.build(ConfigDict(config)).eval()
        model.load_state_dict(reuse_mtp_decoder(file, task, 'sota').state, strict=True)
        with torch.no_grad():
            for name, value in stock_losses(model, task, data).items():
                if 'loss' in name:
                    ours_has = total(found[f'sota/{task}/{name}'])
                    assert ours_has == pytest.approx(total(value), rel=1e-6), (task, name)
                    compared += 1
    assert compared == 1 + 5 + 4


BACKBONES = {
    'SwinV2': dict(
        type='mmrsfm.SwinV2',
        arch=dict(embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)),
        img_size=64,
        window_size=4,
        out_indices=(0, 1, 2, 3),
    ),
    'ConvNeXtV2': dict(
        type='mmrsfm.ConvNeXtV2',
        in_channels=3,
        arch=dict(depths=(1, 1, 1, 1), channels=(8, 16, 32, 64)),
        stem='original',
        patch_size=32,
        out_indices=(0, 1, 2, 3),
    ),
    'CrossScaleViT': dict(
        type='mmrsfm.CrossScaleViT',
        arch=dict(embed_dims=24, num_layers=4, num_heads=2, feedforward_channels=48),
        img_size=64,
        patch_size=16,
        out_indices=(0, 1, 2, 3),
        out_type='pyramid',
    ),
}


def on(backbone):
    widths = [one.shape[1] for one in MODELS.build(backbone).eval()(torch.zeros(1, 3, 64, 64))]
    decoders = tiny.decoders()
    for part in decoders.values():
        part.get('neck', part.get('decode_head'))['in_channels'] = widths
    return tiny.build(backbone=backbone, decoders=decoders, init=False)


def batch():
    return [
        sample(seed=1),
        sample('mine', 2, seed=2, tasks=('semantic', 'rotated')),
        sample(seed=3, objects=0, tasks=('rotated',)),
    ]


@pytest.mark.parametrize('name', list(BACKBONES))
def test_any_backbone_of_the_library(name):
    model = on(BACKBONES[name]).train()
    loss, _ = tiny.run(model, batch())
    loss.backward()
    assert torch.isfinite(loss)
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    data = model.eval().data_preprocessor(tiny.collate(batch()), False)
    assert all('pred_r_instances' in one for one in model(**data, mode='predict'))


def test_anchors_of_other_strides_are_refused():
    """Maps of 8 x 8 patches are twice as fine: anchors would cover a quarter of the image."""
    model = on(dict(BACKBONES['CrossScaleViT'], patch_size=8))
    with pytest.raises(ConfigError, match=r"'instance': .*strides of \[\(4, 4\).*\(32, 32\)"):
        tiny.run(model, batch()[:1])
    data = model.eval().data_preprocessor(tiny.collate(batch()[:1]), False)
    with pytest.raises(ConfigError, match='featmap_strides of the RoI extractors'):
        model(**data, mode='predict')
