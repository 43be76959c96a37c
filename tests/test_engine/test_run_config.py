# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import os

import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError


def test_last_checkpoint_of_a_sound_folder(tmp_path):
    assert run_config.find_last_checkpoint(tmp_path) is None
    assert run_config.find_last_checkpoint(tmp_path / 'not there') is None
    file = tmp_path / 'epoch_3.pth'
    torch.save({'meta': {}}, file)
    (tmp_path / 'last_checkpoint').write_text(f'{file}\n')
    assert run_config.find_last_checkpoint(tmp_path) == file


def test_last_checkpoint_of_a_moved_folder(tmp_path):
    for name in ('epoch_3.pth', 'epoch_4.pth'):
        torch.save({'meta': {}}, tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_3.pth')
    assert run_config.find_last_checkpoint(tmp_path) == tmp_path / 'epoch_3.pth'


@pytest.mark.parametrize('pointer', ['', '/gone/epoch_9.pth', '\0\xff'])
def test_broken_pointer_with_other_checkpoints(tmp_path, pointer):
    for age, name in enumerate(['epoch_10.pth', 'epoch_9.pth']):
        torch.save({'meta': {}}, tmp_path / name)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / 'last_checkpoint').write_text(pointer.replace('epoch_9', 'epoch_11'))
    assert run_config.find_last_checkpoint(tmp_path) == tmp_path / 'epoch_10.pth'


def test_broken_pointer_and_nothing_else(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/gone/epoch_9.pth')
    with pytest.raises(ConfigError, match=r'names /gone/epoch_9\.pth, which does not exist'):
        run_config.find_last_checkpoint(tmp_path)


def test_resume(tmp_path):
    def resolved(argument, **values):
        cfg = Config(dict(work_dir=str(tmp_path), **values))
        run_config.resolve_resume(cfg, argument)
        return cfg.get('resume'), cfg.get('load_from')

    # Without a checkpoint a new run starts, from the weights that the config names.
    assert resolved('auto', load_from='weights.pth') == (False, 'weights.pth')
    assert resolved(None, load_from='weights.pth') == (None, 'weights.pth')
    file = tmp_path / 'iter_8.pth'
    torch.save({'meta': {}}, file)
    (tmp_path / 'last_checkpoint').write_text(str(file))
    assert resolved('auto', load_from='weights.pth') == (True, str(file))
    assert resolved(None, resume=True) == (True, str(file))
    assert resolved(str(file)) == (True, str(file))


def test_tta_wraps_model_and_pipeline():
    cfg = Config(
        dict(
            model=dict(type='M'),
            data_preprocessor=dict(mean=[0.0]),
            tta_model=dict(type='T'),
            tta_pipeline=[dict(type='TestTimeAug')],
            test_dataloader=dict(dataset=dict(type='Repeat', dataset=dict(type='D', pipeline=[]))),
        )
    )
    run_config.enable_tta(cfg)
    assert cfg.model == dict(type='T', module=dict(type='M', data_preprocessor=dict(mean=[0.0])))
    assert cfg.test_dataloader.dataset.dataset.pipeline == [dict(type='TestTimeAug')]


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmseg', 'mmdet'])
def test_visualization_of_each_library(scope, tmp_path):
    pytest.importorskip(scope)
    run_config.register_scope(scope)
    cfg = Config(dict(default_scope=scope))
    run_config.enable_visualization(cfg, False, str(tmp_path / 'x'), 2.0, 3)
    hook = cfg.default_hooks.visualization
    assert hook.get('draw') or hook.get('enable')
    assert hook.interval == 3
    target = hook.get('out_dir') or hook.get('test_out_dir') or cfg.visualizer.get('save_dir')
    assert target == str(tmp_path / 'x')
    assert cfg.visualizer.type.startswith(f'{scope}.')


def test_visualization_of_a_pretraining_algorithm(tmp_path):
    """The visualizer of the runtime draws no predictions; its backends are kept."""
    run_config.register_scope('mmpretrain')
    given = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    for model, visualizer in (
        ('mmrsfm.SARWMixMAE', 'mmrsfm.ReconstructionVisualizer'),
        ('ImageClassifier', 'mmpretrain.UniversalVisualizer'),
    ):
        cfg = Config(
            dict(default_scope='mmpretrain', model=dict(type=model), visualizer=dict(given))
        )
        run_config.enable_visualization(cfg, False, str(tmp_path), 2.0, 3)
        assert cfg.visualizer == dict(given, type=visualizer, name='visualizer')
    own = dict(type='mmrsfm.HeightVisualizer')
    cfg = Config(dict(default_scope='mmseg', visualizer=dict(own)))
    run_config.enable_visualization(cfg, False, str(tmp_path), 2.0, 3)
    assert cfg.visualizer.type == own['type']


def test_amp_on_a_gpu(monkeypatch):
    monkeypatch.setattr(run_config, 'is_cuda_available', lambda: True)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    run_config.enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')


def test_auto_scale_lr():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=256)))
    run_config.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True


def test_dataloader_defaults_are_those_of_mmpretrain():
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(num_workers=2),
            val_dataloader=dict(num_workers=0, collate_fn=dict(type='x')),
            test_dataloader=None,
        )
    )
    run_config.set_dataloader_defaults(cfg)
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.train_dataloader.collate_fn == dict(type='default_collate')
    assert cfg.val_dataloader.persistent_workers is False
    assert cfg.val_dataloader.collate_fn == dict(type='x')
    other = Config(dict(default_scope='mmseg', train_dataloader=ConfigDict(num_workers=2)))
    run_config.set_dataloader_defaults(other)
    assert other.train_dataloader == dict(num_workers=2)
