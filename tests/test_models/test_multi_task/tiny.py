# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A multi-task model and batches that are small enough for tests."""

import copy

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmrotate.structures.bbox import RotatedBoxes

from mmrsfm.registry import MODELS
from tests.parity import REPO

SIDE, WIDTH = 64, 16
ARCH = dict(embed_dims=24, num_layers=4, num_heads=2, interval=2, out_indices=(0, 1, 2, 3))
BACKBONE = dict(type='mmrsfm.RVSAViT', arch=ARCH, img_size=SIDE, patch_size=8)
SETS = [
    dict(name='sota', classes=('house', 'tree', 'ship')),
    dict(name='mine', classes=('car', 'road'), tasks=['semantic', 'rotated']),
]
TASKS = ('semantic', 'instance', 'rotated')


def published():
    """The decoders of configs/_base_/models/mtp.py at their full width."""
    return Config.fromfile(REPO / 'configs/_base_/models/mtp.py').model.to_dict()


def decoders(channels=24, norm='GN', tasks=TASKS, width=WIDTH):
    """Those of the config, thin."""
    found = published()['decoders']
    head = found['semantic']['decode_head']
    norms = {
        'GN': dict(type='GN', num_groups=2),
        'BN': dict(type='BN'),
        'SyncBN': dict(type='SyncBN'),
    }
    head.update(in_channels=[channels] * 4, channels=width, norm_cfg=norms[norm])
    for task in ('instance', 'rotated'):
        one = found[task]
        one['neck'].update(in_channels=[channels] * 4, out_channels=width)
        one['rpn_head'].update(in_channels=width, feat_channels=width)
        one['rpn_head']['anchor_generator']['scales'] = [4]
        roi = one['roi_head']
        roi['bbox_roi_extractor']['out_channels'] = width
        roi['bbox_head'].update(in_channels=width, fc_out_channels=32)
        one['train_cfg']['rpn']['sampler']['num'] = 32
        one['train_cfg']['rcnn']['sampler']['num'] = 24
        for stage in (one['train_cfg']['rpn_proposal'], one['test_cfg']['rpn']):
            stage.update(nms_pre=60, max_per_img=40)
        one['test_cfg']['rcnn'].update(score_thr=0.0, max_per_img=5)
    masks = found['instance']['roi_head']
    masks['mask_roi_extractor']['out_channels'] = width
    masks['mask_head'].update(in_channels=width, conv_out_channels=width, num_convs=2)
    return {task: found[task] for task in tasks}


def config(sets=None, **changes):
    """A model of few channels; ``changes`` are arguments of MTP or of :func:`decoders`."""
    own = {key: changes.pop(key) for key in ('channels', 'norm', 'tasks') if key in changes}
    return dict(
        dict(
            type='mmrsfm.MTP',
            backbone=BACKBONE,
            decoders=decoders(**own),
            datasets=copy.deepcopy(SETS if sets is None else sets),
            data_preprocessor=dict(type='mmrsfm.MTPDataPreprocessor', size=SIDE),
        ),
        **changes,
    )


def build(sets=None, seed=0, init=True, **changes):
    torch.manual_seed(seed)
    model = MODELS.build(config(sets, **changes))
    if init:
        model.init_weights()
    return model


def sample(dataset='sota', classes=3, objects=2, seed=0, size=(SIDE, SIDE), tasks=TASKS, **meta):
    """An image with rectangles, and the three kinds of label of them."""
    draw = np.random.RandomState(seed)
    height, width = size
    masks = np.zeros((objects, height, width), dtype=np.uint8)
    label = np.zeros((1, height, width), dtype=np.int64)
    hboxes, rboxes, labels = [], [], draw.randint(classes, size=objects)
    for number in range(objects):
        w, h = draw.randint(10, 24, size=2)
        x, y = draw.randint(0, width - w), draw.randint(0, height - h)
        masks[number, y : y + h, x : x + w] = 1
        label[0, y : y + h, x : x + w] = labels[number] + 1
        hboxes.append([x, y, x + w, y + h])
        rboxes.append([x + w / 2, y + h / 2, w, h, 0.1 * number])
    found = DetDataSample(
        metainfo=dict(
            dict(
                dataset_name=dataset,
                img_shape=size,
                ori_shape=size,
                scale_factor=(1.0, 1.0),
                img_path=f'{dataset}/{seed}.png',
                tasks=tuple(tasks),
            ),
            **meta,
        )
    )
    names = torch.from_numpy(labels)
    if 'instance' in tasks:
        found.gt_instances = InstanceData(
            bboxes=torch.tensor(hboxes, dtype=torch.float32).reshape(-1, 4),
            labels=names,
            masks=BitmapMasks(masks, height, width),
        )
    if 'rotated' in tasks:
        boxes = torch.tensor(rboxes, dtype=torch.float32).reshape(-1, 5)
        found.r_gt_instances = InstanceData(bboxes=RotatedBoxes(boxes), labels=names.clone())
    if 'semantic' in tasks:
        found.gt_sem_seg = PixelData(data=torch.from_numpy(label))
    image = torch.from_numpy(draw.randn(3, height, width).astype(np.float32))
    return dict(inputs=image, data_samples=found)


def collate(items):
    return dict(
        inputs=[item['inputs'] for item in items],
        data_samples=[item['data_samples'] for item in items],
    )


def run(model, items, training=True):
    """Losses of a batch, and their sum."""
    data = model.data_preprocessor(copy.deepcopy(collate(items)), training)
    losses = model(**data, mode='loss')
    return model.parse_losses(losses)[0], losses
