# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Scenes through a published config of every task, made small, with random weights."""

import copy

import numpy as np
import pytest
import rasterio
import torch
from mmengine.registry import MODELS, DefaultScope

from mmrsfm.apis import SceneInferencer
from mmrsfm.engine import run_config
from tests.test_apis.scenes import picture
from tests.test_configs.tiny_mars import CONFIGS, tiny_config
from tests.test_datasets.imagery import write_tif

DENSE = {
    'dfc23/dual-swinv2-base_mars-pre_deconv_1xb6-80e_dfc23-512px': 'height',
    'guso/swinv2-base_mars-pre_translator-rgb2sar_8xb4-10e_guso-512px': 'translation',
    'whu_cd/swinv2-base_mars-rgb-pre_unet_8xb4-200e_whu-cd-256px': 'change_detection',
    'dfc25/dual-swinv2-base_mars-pre_upernet_4xb4-15k_dfc25-512px': 'segmentation',
}
QUICK = [name for name, task in DENSE.items() if task in ('height', 'change_detection')]
OTHERS = {
    'ubcv2/dual-swinv2-base_mars-pre_cascade-mask-rcnn_1xb4-12e_ubcv2-512px': (
        'instance_segmentation'
    ),
    'scenes/dual-swinv2-base_mars-pre_8xb8-coslr-100e_scene-multilabels-256px': 'classification',
}


def make_model(name, folder, amp=False):
    config = tiny_config(CONFIGS / f'{name}.py', folder / 'data')
    scope = config.get('default_scope')
    run_config.register_scope(scope)
    model = copy.deepcopy(config.model)
    if config.get('data_preprocessor'):
        model.setdefault('data_preprocessor', config.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        torch.manual_seed(0)
        state = MODELS.build(model).state_dict()
    torch.save({'state_dict': state}, folder / 'a.pth')
    return SceneInferencer(config, folder / 'a.pth', amp=amp, tile_size=64, batch_size=2)


def write_scenes(inferencer, folder):
    """One scene for each input, with the bands that it wants."""
    return [
        write_tif(folder / f'{one.name}.tif', picture(90, 100, one.count or 3, seed=number))
        for number, one in enumerate(inferencer.model.inputs)
    ]


@pytest.mark.parametrize(
    'name',
    [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in DENSE if one not in QUICK)],
)
def test_maps(name, tmp_path):
    inferencer = make_model(name, tmp_path)
    assert inferencer.model.task == DENSE[name]
    scenes = write_scenes(inferencer, tmp_path)
    result = inferencer(*scenes, out_dir=tmp_path / 'out', page=True, probabilities=True)
    with rasterio.open(result.outputs['map']) as file, rasterio.open(scenes[0]) as scene:
        assert file.shape == (90, 100) and file.transform == scene.transform
        assert file.count == (1 if DENSE[name] != 'translation' else inferencer.model.channels)
        assert np.isfinite(file.read()).all()
    with rasterio.open(result.outputs.get('probabilities', result.outputs['map'])) as file:
        assert file.read(1).std() > 0
    assert result.outputs['html'].exists()


@pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS])
def test_objects_and_cells(name, tmp_path):
    # In mixed precision: mmcv suppresses no boxes in bfloat16.
    inferencer = make_model(name, tmp_path, amp=True)
    assert inferencer.model.task == OTHERS[name]
    scenes = write_scenes(inferencer, tmp_path)
    result = inferencer(*scenes, out_dir=tmp_path / 'out', page=True, min_score=0.05)
    assert result.outputs['gpkg'].exists() and result.outputs['geojson'].exists()
    assert result.info.get('objects', 0) + result.info.get('cells', 0) > 0
