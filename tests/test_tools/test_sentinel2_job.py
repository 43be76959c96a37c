# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The quickstart's job: its configs end to end on a small made-up scene, and its bookkeeping."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import sentinel2_job as job  # noqa: E402

from data_converters.cut_tiles import cut_tiles  # noqa: E402
from data_converters.spectral_index_labels import label_scene  # noqa: E402
from data_converters.stack_bands import SENTINEL2_BANDS  # noqa: E402
from mmrsfm.apis import SceneInferencer  # noqa: E402
from mmrsfm.errors import BandMismatchError, IncompleteLoadError  # noqa: E402
from tests.processes import run_forked  # noqa: E402


def run_tool(folder, script, *arguments):
    return run_forked([REPO / 'tools' / script, *arguments], folder)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Scene -> tiles -> pretraining -> fine-tuning -> test, each by the command of a user."""
    folder = tmp_path_factory.mktemp('job')
    data = folder / job.DATA
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    coarse = rng.integers(300, 4000, (13, 12, 9)).astype(np.float32)
    scene = np.stack([cv2.resize(band, (288, 384)) for band in coarse]).astype(np.uint16)
    with rasterio.open(
        data / 'scene.tif', 'w', driver='GTiff', count=13, dtype='uint16', height=384, width=288,
        crs='EPSG:32618', transform=from_origin(435730, 4179460, 10, 10),
    ) as out:  # fmt: skip
        out.write(scene)
        out.descriptions = SENTINEL2_BANDS
    label_scene(data / 'scene.tif', data / 'labels.tif')
    assert cut_tiles(
        data / 'scene.tif', data, data / 'labels.tif', gap=0, stride=64, quiet=True
    ) == {'train': 3, 'val': 3, 'test': 3}
    logs = {}
    logs['pretrain'] = run_tool(
        folder, 'train.py', job.PRETRAIN, '--work-dir', 'pre', '--cfg-options',
        'train_cfg.max_epochs=2', 'train_dataloader.batch_size=3',
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'default_hooks.logger.interval=1',
    )  # fmt: skip
    weights = job.latest_checkpoint(folder / 'pre')
    logs['finetune'] = run_tool(
        folder, 'train.py', job.FINETUNE['pretrained'], '--work-dir', 'fine', '--cfg-options',
        f'model.backbone.init_cfg.checkpoint={folder / weights}', 'train_cfg.max_iters=2',
        'train_dataloader.batch_size=2', 'default_hooks.logger.interval=1',
    )  # fmt: skip
    checkpoint = folder / job.latest_checkpoint(folder / 'fine')
    logs['test'] = run_tool(
        folder, 'test.py', job.FINETUNE['pretrained'], checkpoint, '--work-dir', 'fine/test'
    )
    return folder, checkpoint, logs


@pytest.mark.timeout(600)
class TestEndToEnd:
    def test_the_fine_tuning_starts_from_the_pretraining(self, trained):
        _, _, logs = trained
        assert 'pos_embed: 8x8 -> 12x12' in logs['finetune']
        assert re.search(r'missing \(allowed\): pyramid', logs['finetune'])
        assert 'Sentinel-2 L1C' in logs['finetune']

    def test_losses_are_logged_by_name(self, trained):
        _, _, logs = trained
        for name in ('recon_orig', 'recon_crop', 'cross_pred', 'contrastive'):
            assert re.search(rf'loss_{name}: -?\d', logs['pretrain'])

    def test_metrics_are_found(self, trained):
        folder, _, _ = trained
        assert 0 <= job.read_metrics(folder / 'fine' / 'test')['mIoU'] <= 100

    def test_map_and_picture(self, trained, monkeypatch):
        folder, checkpoint, _ = trained
        monkeypatch.chdir(folder)
        models = {'pretrained': (job.FINETUNE['pretrained'], checkpoint)}
        geotiff, picture = job.draw_map(models, Path('out'))
        with rasterio.open(geotiff) as out, rasterio.open(job.DATA / 'strips/test.tif') as source:
            assert out.crs == source.crs and out.transform == source.transform
            assert out.shape == source.shape == (128, 288)
            assert set(np.unique(out.read(1))) <= {0, 1, 2, 3}
        assert cv2.imread(str(picture)).shape[0] > 300

    def test_maps_mark_pixels_without_data(self, trained, tmp_path):
        folder, checkpoint, _ = trained
        config = job.FINETUNE['random']
        with rasterio.open(folder / job.DATA / 'strips/test.tif') as source:
            array, profile, names = source.read(), source.profile, source.descriptions
        array[:, 10:20, 30:50] = 0
        with rasterio.open(tmp_path / 'a.tif', 'w', **{**profile, 'nodata': 0}) as out:
            out.write(array)
            out.descriptions = names
        infer = SceneInferencer(config, checkpoint)
        result = infer(tmp_path / 'a.tif', out_dir=tmp_path / 'out')
        with rasterio.open(result.outputs['map']) as out:
            classes = out.read(1)
        assert (classes[10:20, 30:50] == 255).all()
        assert (classes == 255).sum() == 200

    def test_another_checkpoint_and_other_bands_are_refused(self, trained, tmp_path):
        folder, checkpoint, _ = trained
        config = job.FINETUNE['random']
        with pytest.raises(IncompleteLoadError, match='does not fit'):
            SceneInferencer(config, folder / job.latest_checkpoint(folder / 'pre'))
        with rasterio.open(
            tmp_path / 'rgb.tif', 'w', driver='GTiff', count=3, dtype='uint16', height=128,
            width=128, crs='EPSG:32618', transform=from_origin(0, 0, 10, 10),
        ) as out:  # fmt: skip
            out.descriptions = ('B04', 'B03', 'B02')
        with pytest.raises(BandMismatchError, match=r'rgb\.tif'):
            SceneInferencer(config, checkpoint)(tmp_path / 'rgb.tif', out_dir=tmp_path)
