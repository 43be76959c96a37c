# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The demonstration of MTP on made-up imagery: data, training, numbers, pictures, decoders."""

import importlib
import json
import multiprocessing.dummy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import data_mtp  # noqa: E402
import mtp_job as job  # noqa: E402

from mmrsfm.checkpoints import read_checkpoint  # noqa: E402
from mmrsfm.checkpoints.mtp_decoder import fit_to_model, reuse_mtp_decoder  # noqa: E402
from mmrsfm.engine import run_config  # noqa: E402
from mmrsfm.registry import DATASETS  # noqa: E402
from tests.test_tools.test_demo_tasks import THING, VOC, write_atlanta, write_neon  # noqa: E402

FINETUNINGS = {
    'semantic': 'rvsa-tiny_mtp-demo-pre_upernet_1xb4-40i_yellowstone-demo-192px.py',
    'instance': 'rvsa-tiny_mtp-demo-pre_mask-rcnn_1xb4-40i_yellowstone-demo-192px.py',
    'rotated': 'rvsa-tiny_mtp-demo-pre_oriented-rcnn_1xb4-40i_yellowstone-demo-192px.py',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Both data sets and the trees of Yellowstone, where the configs look."""
    root = tmp_path_factory.mktemp('mtp')
    neon = write_neon(root / 'neon')
    picture = np.full((200, 620, 3), 30, np.uint8)
    boxes = [(x, 20, x + 30, 60) for x in range(10, 600, 60)]
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = 220
    cv2.imwrite(str(neon / data_mtp.YELLOWSTONE), picture)
    things = ''.join(THING.format(*one) for one in boxes)
    text = VOC.format(name='', width=620, height=200, objects=things)
    (neon / data_mtp.YELLOWSTONE).with_suffix('.xml').write_text(text)
    atlanta = write_atlanta(root / 'atlanta')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_mtp, 'WINDOWS', {'train': (0, 0, 200, 200), 'test': (400, 0, 220, 200)})
        counts = {
            'atlanta': data_mtp.build_atlanta(atlanta, root / job.DATA / 'atlanta'),
            'neon': data_mtp.build_neon(neon, root / job.DATA / 'neon'),
            'yellowstone': data_mtp.build_yellowstone(neon, root / job.DATA / 'yellowstone'),
        }
    assert all(tiles and things for parts in counts.values() for tiles, things in parts.values())
    return root


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    mean_ap = importlib.import_module('mmrotate.evaluation.functional.mean_ap')
    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)


@pytest.fixture(scope='module')
def checkpoint(folder):
    """Two steps of the pretraining."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
        cfg = run_config.load_config(
            job.CONFIG,
            {
                'train_cfg.max_iters': 2,
                'train_dataloader.batch_size': 2,
                'default_hooks.checkpoint.interval': 2,
                'default_hooks.logger.interval': 1,
                'work_dir': 'work',
            },
        )
        run_config.set_dataloader_defaults(cfg)
        run_config.build_runner(cfg).train()
    return job.latest_checkpoint(folder / 'work')


def test_areas_are_apart_and_labels_lie_on_the_objects():
    cfg = run_config.load_config(job.CONFIG)
    init_default_scope(cfg.default_scope)
    areas = {}
    for area in ('train', 'test'):
        loader = cfg[f'{area}_dataloader'].dataset
        data = DATASETS.build(loader)
        assert data.names == list(job.SETS)
        areas[area] = {
            Path(part.get_data_info(number)['img_path']).stem
            for part in data.datasets
            for number in range(len(part))
        }
        for sample in (data[0]['data_samples'], data[len(data) - 1]['data_samples']):
            image = cv2.imread(sample.img_path, cv2.IMREAD_GRAYSCALE)
            flip = {None: None, 'horizontal': 1, 'vertical': 0, 'diagonal': -1}
            code = flip[sample.get('flip_direction') if sample.get('flip') else None]
            image = image if code is None else cv2.flip(image, code)
            inside = sample.gt_sem_seg.data[0].numpy() == 1
            assert np.median(image[inside]) > 150 > np.median(image[~inside])
            assert len(sample.gt_instances) == len(sample.r_gt_instances) > 0
    assert not areas['train'] & areas['test']
    # The windows of Yellowstone do not touch, with the true numbers.
    (left, _, width, _), (start, _, _, _) = data_mtp.WINDOWS['train'], data_mtp.WINDOWS['test']
    assert start - (left + width) == 256


@pytest.mark.filterwarnings('ignore')
def test_trains_measures_and_draws(checkpoint, tmp_path, capsys):
    assert (checkpoint.parent / f'encoder_{checkpoint.name}').is_file()
    losses = job.read_losses(checkpoint.parent, count=1)
    assert len(losses) == 20 and np.isfinite(list(losses.values())).all()
    # One tile of each data set; an untrained model is sure of nothing.
    options = {f'test_dataloader.dataset.datasets.{n}.indices': 1 for n in range(2)}
    for task in ('instance', 'rotated'):
        options[f'model.decoders.{task}.test_cfg.rcnn.max_per_img'] = 5
    metrics = job.runner_for_tests(job.CONFIG, checkpoint, 0, tmp_path, options).test()
    for name in job.SETS:
        assert all(f'{name}/{key}' in metrics for key in ('semantic/mIoU', 'rotated/mAP'))
    job.print_numbers({'test': metrics, 'train': metrics}, losses)
    shown = capsys.readouterr().out
    assert 'instance/rpn_cls' in shown and 'rotated boxes: AP50 (%)' in shown
    picture = job.draw(
        checkpoint, options, tmp_path, tmp_path / 'picture.png', 'Test areas', threshold=0.0
    )
    assert cv2.imread(str(picture)).shape[0] > 1000


def test_the_verdict_is_what_the_losses_say():
    losses = {'a/rotated/loss_cls': (2.0, 1.0), 'a/rotated/loss_bbox': (0.1, 0.2)}
    text = job.verdict(losses)
    assert text.startswith('The sum of the losses has fallen for 1 of 1 data sets and tasks.')
    assert 'Of the 2 losses these have not fallen: a/rotated/loss_bbox.' in text
    assert 'only those on objects count' in text
    assert job.verdict({'a/b/loss_c': (2.0, 1.0)}).endswith('for 1 of 1 data sets and tasks.')
    text = job.verdict({**losses, 'a/b/loss_c': (2.0, float('nan'))})
    assert 'for 1 of 2' in text and 'a/rotated/loss_bbox, a/b/loss_c.' in text


def test_losses_of_an_interrupted_training_are_read_from_all_its_logs(tmp_path):
    for number, steps in enumerate(([1, 2, 3], [3, 4])):
        file = tmp_path / f'2026_{number}' / 'vis_data' / '2026.json'
        file.parent.mkdir(parents=True)
        rows = [{'step': step, 'loss': 1.0, 'a/b/loss_c': 10.0 - step} for step in steps]
        file.write_text('\n'.join(map(json.dumps, [*rows, {'step': 9, 'mIoU': 1.0}])))
    assert job.read_losses(tmp_path, count=1) == {'a/b/loss_c': (9.0, 6.0)}


@pytest.mark.parametrize('task', list(FINETUNINGS))
def test_each_decoder_fits_its_fine_tuning(task, checkpoint):
    cfg = run_config.load_config(job.CONFIG.with_name(FINETUNINGS[task]))
    init_default_scope(cfg.default_scope)
    assert cfg.model.backbone.pop('init_cfg').checkpoint.endswith('encoder_iter_300.pth')
    model = MODELS.build(cfg.model)
    content = read_checkpoint(checkpoint)
    wanted = ['background', 'tree'] if task == 'semantic' else ['tree']
    reuse = fit_to_model(reuse_mtp_decoder(content, task, 'neon', wanted), model)
    assert not reuse.loaded.missing, 'the model has something that the pretraining has not'
    assert not any('shape' in reason or 'place' in reason for reason in reuse.left)
    now, saved = model.state_dict(), content['state_dict']
    for name, origin in reuse.taken.items():
        assert torch.equal(now[name], saved[origin]), name
    # What the data set reads is there.
    data = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(data) == 1
    assert list(data.metainfo['classes']) == wanted
