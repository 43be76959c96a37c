# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every data set of MTP: two steps, a validation and a test of its config, made small."""

import importlib
import json
import math
import multiprocessing.dummy
import zipfile
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from mmrsfm.engine.run_config import build_runner
from tests.formats import MAKERS
from tests.test_configs.tiny_mtp import DATA, config_file, released_file, tiny_config

RUNS = [
    *((folder, 'rvsa-base_mtp-pre') for folder in DATA),
    ('dota1', 'internimage-xl_mtp-pre'),
    # A second backbone in the same models.
    *(
        pytest.param(folder, 'internimage-xl_mtp-pre', marks=pytest.mark.slow)
        for folder in ('xview', 'loveda', 'oscd')
    ),
]


class Witness(Hook):
    """What the training did."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.losses = []
        self.idle = set()

    def before_train(self, runner):
        for name, weight in runner.model.named_parameters():
            if weight.requires_grad:
                self.idle.add(name)
                weight.register_post_accumulate_grad_hook(
                    lambda _, name=name: self.idle.discard(name)
                )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss']))


@pytest.mark.parametrize(('folder', 'start'), RUNS)
def test_trains_two_steps_and_tests(folder, start, tmp_path, monkeypatch):
    if folder in ('dior_r', 'dota1', 'dota2'):
        # mmrotate's mean average precision spawns four processes: threads do for six images.
        mean_ap = importlib.import_module('mmrotate.evaluation.functional.mean_ap')
        monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)
    name, options = DATA[folder]
    data = MAKERS[name](tmp_path / 'data', **options)
    cfg = tiny_config(folder, data, start, released_file(start, tmp_path / 'released.pth'))
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    witness = Witness()
    runner.register_hook(witness)
    runner.train()
    assert len(witness.losses) == 2
    assert all(map(math.isfinite, witness.losses))
    # DDP stops at a parameter without a gradient, unless it is told to look for them.
    assert bool(witness.idle) == bool(cfg.get('find_unused_parameters')), sorted(witness.idle)
    assert all(one.startswith('backbone.fpn1.') for one in witness.idle)
    metrics = runner.test()
    check_outcome(folder, metrics, tmp_path / 'work', data)


@pytest.mark.parametrize('folder', ['dior', 'spacenetv1'])
def test_trains_as_a_config_of_another_project(folder, tmp_path):
    """MMEngine marks what is inherited by 'mmrsfm::' with our scope; the types are of others."""
    name, options = DATA[folder]
    data = MAKERS[name](tmp_path / 'data', **options)
    child = tmp_path / 'child.py'
    own = own_classes(data) if folder == 'dior' else ''
    child.write_text(f"_base_ = 'mmrsfm::mtp/{folder}/{config_file(folder).name}'\n{own}")
    cfg = tiny_config(folder, data, file=child)
    assert cfg.model['_scope_'] == 'mmrsfm'
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    runner.train()
    check_outcome(folder, runner.test(), tmp_path / 'work', data)
    if own:
        assert runner.train_dataloader.dataset.metainfo['classes'] == ('tree', 'shed')
        assert runner.model.roi_head.bbox_head.fc_cls.out_features == 3


def own_classes(data: Path) -> str:
    """Makes two classes of the data, and returns what the README says to write for them."""
    for file in data.glob('*.json'):
        content = json.loads(file.read_text())
        content['categories'] = [{'id': 7, 'name': 'tree'}, {'id': 9, 'name': 'shed'}]
        for number, one in enumerate(content['annotations']):
            one['category_id'] = (7, 9)[number % 2]
        file.write_text(json.dumps(content))
    return (
        "own = dict(metainfo=dict(classes=('tree', 'shed')))\n"
        'model = dict(roi_head=dict(bbox_head=dict(num_classes=2)))\n'
        'train_dataloader = dict(dataset=dict(**own))\n'
        'val_dataloader = dict(dataset=dict(**own))\n'
        'test_dataloader = val_dataloader\n'
    )


def check_outcome(folder: str, metrics: dict, work_dir: Path, data: Path) -> None:
    written = work_dir / 'submission'
    if folder in ('dota1', 'dota2'):
        (archive,) = written.rglob('*.zip')
        names = zipfile.ZipFile(archive).namelist()
        assert len(names) == (15 if folder == 'dota1' else 18)
        assert all(one.startswith('Task1_') for one in names)
    elif folder == 'fair1m':
        (archive,) = written.rglob('*.zip')
        whole = {path.stem.split('__')[0] for path in (data / 'test' / 'images').iterdir()}
        assert {Path(one).stem for one in zipfile.ZipFile(archive).namelist()} == whole
    elif folder == 'loveda':
        (archive,) = written.rglob('*.zip')
        images = {path.name for path in (data / 'test' / 'images').iterdir()}
        assert {Path(one).name for one in zipfile.ZipFile(archive).namelist()} == images
    else:
        wanted = {
            'eurosat': 'accuracy/top1', 'resisc45': 'accuracy/top5', 'xview': 'coco/bbox_mAP_50',
            'dior': 'coco/bbox_mAP_50', 'dior_r': 'dota/mAP', 'spacenetv1': 'mIoU',
        }.get(folder, 'mIoU')  # fmt: skip
        assert math.isfinite(metrics[wanted]), json.dumps(metrics, default=str)
        assert not written.exists()
    if folder in ('oscd', 'whu_cd', 'levir_cd', 'cdd'):
        assert {'F1', 'precision', 'recall', 'IoU', 'mFscore'} <= set(metrics)
