# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""All 83 configs of MTP build at their full size: each distinct model once, without its memory."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, init_default_scope

from mmrsfm.engine.run_config import load_config, register_scope
from tests.test_configs.tiny_mtp import CONFIGS, DATA

FILES = sorted(file for folder in DATA for file in (CONFIGS / folder).glob('*.py'))
# Trained parameters of the backbones, in millions.
BACKBONES = {'rvsa-base': (90, 110), 'rvsa-large': (310, 340), 'internimage-xl': (325, 335)}


def test_there_are_83():
    assert len(FILES) == 83


@pytest.mark.parametrize('folder', DATA)
def test_models_and_optimizers_build(folder):
    models = {}
    for file in (one for one in FILES if one.parent.name == folder):
        cfg = Config.fromfile(file)
        scope = cfg.default_scope
        register_scope(scope)
        init_default_scope(scope)
        cfg.model.backbone.pop('init_cfg')  # both initialisations of a backbone are one model
        key = (str(cfg.model), str(cfg.optim_wrapper))
        if key in models:
            continue
        if cfg.get('data_preprocessor'):
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        models[key] = model
        low, high = BACKBONES[file.name.split('_')[0]]
        count = sum(weight.numel() for weight in model.backbone.parameters()) / 1e6
        assert low < count < high, f'{file.name}: {count} M'
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        groups = wrapper.optimizer.param_groups
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        assert sum(len(group['params']) for group in groups) == len(trained)
        scales = {round(group['lr'] / wrapper.optimizer.defaults['lr'], 6) for group in groups}
        if file.name.startswith('rvsa'):
            layers = len(model.backbone.blocks)
            assert scales == {round(0.9**power, 6) for power in range(layers + 2)}
        else:
            assert scales == {1.0}, 'published: no decay'
    assert len(models) == 3


@pytest.mark.parametrize('folder', ['eurosat', 'dior', 'dota1', 'spacenetv1', 'levir_cd'])
def test_inherited_from_another_project(folder, tmp_path):
    """MMEngine marks what is inherited by 'mmrsfm::' with our scope; the types are of others."""
    file = next(one for one in FILES if one.parent.name == folder and 'mtp-pre' in one.name)
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = 'mmrsfm::mtp/{folder}/{file.name}'\n")
    cfg, plain = load_config(child), load_config(file)
    assert cfg.model['_scope_'] == 'mmrsfm'
    init_default_scope(cfg.default_scope)
    built = []
    for one in (cfg, plain):
        with torch.device('meta'):
            model = MODELS.build(one.model)
        types = [type(part) for part in model.modules()]
        for transform in one.train_pipeline:
            types.append(type(TRANSFORMS.build(transform)))
        types.append(DATASETS.get(one.test_dataloader.dataset.type))
        built.append(types)
    assert built[0] == built[1]
