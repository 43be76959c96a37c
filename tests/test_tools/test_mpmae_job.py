# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The demonstration of MP-MAE on a made-up scene: data, training, picture, probe, numbers."""

import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import rasterio
from mmengine.runner import Runner
from rasterio.transform import from_origin

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import data_mmearth  # noqa: E402
import data_sentinel2  # noqa: E402
import mpmae_job as job  # noqa: E402

from data_converters.spectral_index_labels import label_scene  # noqa: E402
from data_converters.stack_bands import SENTINEL2_BANDS  # noqa: E402
from mmrsfm.engine import run_config  # noqa: E402


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A scene with an area of each class, as the job finds it."""
    monkeypatch.chdir(tmp_path)
    job.DATA.mkdir(parents=True)
    rng = np.random.default_rng(0)
    coarse = rng.integers(300, 4000, (13, 12, 9)).astype(np.float32)
    image = np.stack([cv2.resize(band, (288, 384)) for band in coarse]).astype(np.uint16)
    with rasterio.open(
        job.DATA / 'scene.tif', 'w', driver='GTiff', count=13, dtype='uint16', height=384,
        width=288, crs='EPSG:32618', transform=from_origin(435730, 4179460, 10, 10),
    ) as out:  # fmt: skip
        out.write(image)
        out.descriptions = SENTINEL2_BANDS
    return label_scene(job.DATA / 'scene.tif', job.DATA / 'labels.tif')


def train(config, folder, **options):
    cfg = run_config.load_config(
        config,
        {
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.logger.interval': 1,
            'work_dir': str(folder),
            **options,
        },
    )
    run_config.set_dataloader_defaults(cfg)
    Runner.from_cfg(cfg).train()
    return job.latest_checkpoint(folder)


@pytest.mark.filterwarnings('ignore')
def test_data_training_and_picture(scene, tmp_path):
    (job.DATA / 'mmearth').mkdir()
    counts = data_mmearth.build_mmearth(job.DATA, job.DATA / 'mmearth', gap=0)
    assert counts['train'] > 0 and counts['test'] > 0
    root = job.DATA / 'mmearth' / data_mmearth.NAME
    with h5py.File(root / f'{root.name}.h5') as file:
        cover = file['dynamic_world'][0, 0]
        assert np.isneginf(file['sentinel1'][0]).all()
    table = {0: 1, 1: 2, 2: 8, 3: 0, 255: 0}
    assert np.array_equal(cover, np.vectorize(table.get)(scene[:64, :64]))
    checkpoint = train(
        job.PRETRAIN, tmp_path / 'work',
        **{'train_cfg.max_iters': 2, 'train_dataloader.batch_size': 2},
    )  # fmt: skip
    before, after = (job.measure_losses(one, tmp_path / 'test') for one in (None, checkpoint))
    assert set(before) == set(job.LOSSES) and np.isfinite([*before.values()]).all()
    assert before == job.measure_losses(None, tmp_path / 'test') != after
    picture = job.draw(checkpoint, tmp_path / 'drawing', tmp_path / 'picture.png', count=2)
    assert cv2.imread(str(picture)).shape[1] > 500
    # The frozen encoder of the probe is that of the checkpoint.
    cfg = run_config.load_config(
        job.PROBES['pretrained'], {'model.backbone.init_cfg.checkpoint': str(checkpoint)}
    )
    from mmrsfm.registry import MODELS

    model = MODELS.build(cfg.model.backbone)
    model.init_weights()
    import torch

    saved = torch.load(checkpoint, weights_only=False)['state_dict']
    for name, value in model.state_dict().items():
        if not name.startswith('norm'):
            assert torch.equal(value, saved[f'backbone.{name}']), name
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_splits_are_those_of_the_class_tiles(scene):
    """The pretraining sees nothing of the strip that tests the probe."""
    height = 1942  # of the real scene, as its bands are stacked
    for size in (32, 64):
        strips = data_sentinel2.make_strips(height, size, 64, data_sentinel2.SPLITS)
        if size == 32:
            test = strips[-1].top
        else:
            assert strips[0].bottom <= test - 64


@pytest.mark.parametrize(
    ('after', 'says'), [(90.0, 'for 2 of 2 seeds.'), (60.0, 'Where it is not')]
)
def test_the_verdict_is_what_the_numbers_say(after, says, capsys):
    def row(value):
        return {'single-label/f1-score': value, 'accuracy/top1': value}

    results = {'random': [row(70.0)] * 2, 'pretrained': [row(after)] * 2}
    assert says in job.verdict(results)
    job.print_numbers(results, dict.fromkeys(results, dict.fromkeys(job.LOSSES, 1.0)))
    shown = capsys.readouterr().out
    assert 'linear probe on the test strip, 2 seed(s)' in shown and 'latitude' in shown
