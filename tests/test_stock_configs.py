# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A stock config of each task library with a backbone of mmrsfm, by the library's own trainer.

As a user who has never seen this repository would do it: in a foreign folder, with the data where
the stock config looks for them, a config that inherits the stock one and changes
``custom_imports``, the backbone (with weights), the channels of what follows it, and the length of
the training. Model, data, pipelines, schedule, hooks and evaluators are the library's.
"""

import importlib.util
import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset

from mmrsfm.registry import MODELS
from tests.formats.dota import CLASSES_V1
from tests.formats.drawing import (
    bounds,
    colour,
    generator,
    paint,
    rectangles,
    save,
    terrain,
    write_lines,
)
from tests.processes import FreshPython

BACKBONES = {
    # Channels of the four maps, and the dict.
    'RVSAViT': (
        (16, 16, 16, 16),
        "type='mmrsfm.RVSAViT', out_indices=[0, 1, 2, 3],\n"
        '        arch=dict(embed_dims=16, num_layers=4, num_heads=2, interval=2)',
    ),
    'InternImage': (
        (16, 32, 64, 128),
        "type='mmrsfm.InternImage',\n"
        '        arch=dict(channels=16, depths=[1, 1, 1, 1], groups=[1, 2, 4, 8])',
    ),
}

COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

# The end of the name of one tensor of each.
KNOWN = ('patch_embed.proj.bias', 'patch_embed.conv1.bias')

# The whole file that a user writes. The way to the stock config is found by Python: 'mmseg::' is
# refused where mmseg comes from a package of another name than 'mmsegmentation'.
CONFIG = """
_base_ = __import__({library!r}).__path__[0] + '/.mim/configs/{stock}'
custom_imports = dict(imports=['mmrsfm'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        {backbone},
        init_cfg=dict(type='mmrsfm.Pretrained', checkpoint='encoder.pth')),
    {rest})
train_cfg = dict({length})
work_dir = 'work'
"""


def write_coco(root: Path) -> None:
    """COCO as mmdet's base config reads it; wide images, to be quick at 1333x800."""
    for place, (split, count) in enumerate({'train2017': 4, 'val2017': 1}.items()):
        images, annotations = [], []
        for number in range(count):
            rng = generator(0, 1, place, number)
            picture = terrain(rng, 32, 384)
            name = f'{number + 139:012d}.jpg'
            images.append({'id': number + 139, 'file_name': name, 'height': 32, 'width': 384})
            for k, polygon in enumerate(rectangles(rng, 32, 384, 5)):
                picture = paint(picture, polygon, colour(k))
                left, top, right, bottom = bounds(polygon)
                box = [left, top, right - left, bottom - top]
                annotations.append(
                    {
                        'id': 1000 * (place + 1) + len(annotations),
                        'image_id': number + 139,
                        'category_id': (3, 5)[k % 2],
                        'bbox': box,
                        'area': box[2] * box[3],
                        'iscrowd': 0,
                        'segmentation': [polygon.ravel().tolist()],
                    }
                )
            save(root / 'coco' / split / name, picture)
        # All 80, with the gaps in their numbers: mmdet writes results of any class.
        numbers = [n for n in range(1, 91) if n not in COCO_GAPS]
        names = CocoDataset.METAINFO['classes']
        categories = [{'id': n, 'name': name} for n, name in zip(numbers, names, strict=True)]
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        file = root / 'coco' / 'annotations' / f'instances_{split}.json'
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))


def write_dota(root: Path) -> None:
    """Single-scale patches of DOTA-1.0 as mmrotate's base config reads them; low ones."""
    for number in range(4):
        rng = generator(0, 2, number)
        picture = terrain(rng, 32, 384)
        lines = []
        for k, polygon in enumerate(rectangles(rng, 32, 384, 6)):
            picture = paint(picture, polygon, colour(k))
            corners = ' '.join(f'{value:.1f}' for value in polygon.ravel())
            lines.append(f'{corners} {CLASSES_V1[k]} 0\n')
        stem = f'P0001__1024__{824 * number}___0'
        folder = root / 'split_ss_dota' / 'trainval'
        save(folder / 'images' / f'{stem}.png', picture)
        (folder / 'annfiles').mkdir(exist_ok=True)
        (folder / 'annfiles' / f'{stem}.txt').write_text(''.join(lines))


def write_ade20k(root: Path) -> None:
    """ADE20K as mmseg's base config reads it: 0 is no label, 1 to 150 are classes."""
    for place, (split, count) in enumerate({'training': 4, 'validation': 1}.items()):
        for number in range(count):
            rng = generator(0, 3, place, number)
            picture = terrain(rng, 96, 128)
            label = np.zeros((96, 128), np.uint8)
            for k, polygon in enumerate(rectangles(rng, 96, 128, 6)):
                picture, label = paint(picture, polygon, colour(k)), paint(label, polygon, k + 1)
            folder = root / 'ade' / 'ADEChallengeData2016'
            stem = f'ADE_{split[:5]}_{number + 1:08d}'
            save(folder / 'images' / split / f'{stem}.jpg', picture)
            save(folder / 'annotations' / split / f'{stem}.png', label)


def write_imagenet(root: Path) -> None:
    """ImageNet as mmpretrain's base config reads it: folders of synsets, and lists with labels."""
    for split, count in {'train': 32, 'val': 2}.items():
        lines = []
        for label, name in enumerate(('n01440764', 'n01443537')):
            for number in range(count):
                rng = generator(0, 4, label, number)
                picture = terrain(rng, 64, 80)
                for polygon in rectangles(rng, 64, 80, 3):
                    picture = paint(picture, polygon, colour(label))
                save(root / 'imagenet' / split / name / f'{name}_{number}.JPEG', picture)
                lines.append(f'{name}/{name}_{number}.JPEG {label}')
        write_lines(root / 'imagenet' / 'meta' / f'{split}.txt', lines)


def write_encoder(backbone: str, file: Path) -> None:
    """Weights in the layout of MTP's encoder files, one of them of a value to be known by."""
    model = MODELS.build(eval(f'dict({BACKBONES[backbone][1]})'))
    state = {f'encoder.{name}': value for name, value in model.state_dict().items()}
    (first,) = (name for name in state if name.endswith(KNOWN))
    state[first] = torch.full_like(state[first], 7.0)
    torch.save({'state_dict': state}, file)


# Library: stock config, what writes its data, what follows the backbone, length.
LIBRARIES = {
    'mmdet': (
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        write_coco,
        'neck=dict(in_channels={channels})',
        'max_epochs=1',
    ),
    'mmrotate': (
        'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py',
        write_dota,
        'neck=dict(in_channels={channels})',
        # No validation: rotated NMS of what an untrained model predicts takes half a minute.
        'max_epochs=1, val_begin=2',
    ),
    # No neck: the head follows.
    'mmseg': (
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        write_ade20k,
        'decode_head=dict(in_channels={channels})',
        'max_iters=2, val_interval=2',
    ),
    # Its neck has no channels: the head follows.
    'mmpretrain': (
        'resnet/resnet50_8xb32_in1k.py',
        write_imagenet,
        'head=dict(in_channels={last})',
        'max_epochs=1',
    ),
}


@pytest.fixture(scope='module')
def python():
    """Has imported MMEngine and MMCV, as each trainer does first."""
    with FreshPython() as fresh:
        yield fresh.executable


@pytest.mark.parametrize(
    ('library', 'backbone'),
    [
        ('mmdet', 'RVSAViT'),
        ('mmrotate', 'InternImage'),
        # These two: test_custom_imports.py has the trainers of both libraries.
        pytest.param('mmseg', 'RVSAViT', marks=pytest.mark.slow),
        pytest.param('mmpretrain', 'InternImage', marks=pytest.mark.slow),
        pytest.param('mmdet', 'InternImage', marks=pytest.mark.slow),
        pytest.param('mmrotate', 'RVSAViT', marks=pytest.mark.slow),
        pytest.param('mmseg', 'InternImage', marks=pytest.mark.slow),
        pytest.param('mmpretrain', 'RVSAViT', marks=pytest.mark.slow),
    ],
)
def test_two_iterations_of_a_stock_config(library, backbone, python, tmp_path):
    stock, write_data, rest, length = LIBRARIES[library]
    channels, text = BACKBONES[backbone]
    (tmp_path / 'data').mkdir()
    write_data(tmp_path / 'data')
    write_encoder(backbone, tmp_path / 'encoder.pth')
    rest = rest.format(channels=list(channels), last=channels[-1])
    config = CONFIG.format(library=library, stock=stock, backbone=text, rest=rest, length=length)
    (tmp_path / 'config.py').write_text(config)

    package = Path(importlib.util.find_spec(library).origin).parent
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    result = subprocess.run(
        [python, str(package / '.mim' / 'tools' / 'train.py'), 'config.py'],
        cwd=tmp_path,
        env={**environment, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    (log,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [entry['loss'] for entry in entries if 'loss' in entry]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    validated = [entry for entry in entries if 'time' in entry and 'loss' not in entry]
    assert bool(validated) == (library != 'mmrotate')
    (file,) = (tmp_path / 'work').glob('*.pth')
    checkpoint = torch.load(file, weights_only=False)  # written by this test
    assert checkpoint['meta']['iter'] == 2
    names = [name for name in checkpoint['state_dict'] if name.startswith('backbone.')]
    assert len(names) > 20
    # The weights were loaded, and two steps of the first warm-up did not take them far.
    (first,) = (value for name, value in checkpoint['state_dict'].items() if name.endswith(KNOWN))
    assert (first - 7.0).abs().max() < 0.5
    # Every parameter of the backbone that is in the graph was stepped.
    assert len(checkpoint['optimizer']['state']) >= len(names) // 2
