# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Real MMEngine runs on the safe reader: train, resume, load_from, init_cfg, and the guard."""

import copy
import subprocess
import sys

import pytest
import torch
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner.checkpoint import load_from_local
from torch import nn
from torch.utils.data import Dataset

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import ContractError, IncompleteLoadError, UnsafeCheckpointError

CONTRACT = {'band_names': ['R', 'G', 'B'], 'scale': 1.0, 'sensor': 'test'}


class Backbone(BaseModule):
    def __init__(self, channels=3, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(channels, 2, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.conv(x))


class Model(BaseModel):
    def __init__(self, channels=3, contract=None, init_cfg=None, spoil=False):
        super().__init__()
        self.backbone = Backbone(channels, init_cfg)
        self.head = nn.Linear(2, 1)
        self.spoil = spoil
        self.data_preprocessor.contract = (
            None if contract is None else ImageryContract.from_dict(contract)
        )

    def init_weights(self):
        super().init_weights()
        if self.spoil:
            nn.init.zeros_(self.backbone.conv.bias)

    def forward(self, inputs, mode='tensor'):
        out = self.head(self.backbone(inputs).mean(dim=(2, 3)))
        return {'loss': (out**2).mean()} if mode == 'loss' else out


class Data(Dataset):
    # MMEngine stores it in the checkpoint.
    metainfo = {'classes': ('a', 'b'), 'palette': [[1, 2, 3]]}

    def __init__(self, channels):
        self.channels = channels

    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {'inputs': torch.rand(self.channels, 4, 4, generator=generator)}


def collate(samples):
    return {'inputs': torch.stack([sample['inputs'] for sample in samples])}


def runner(work_dir, epochs=2, channels=3, seed=0, **kwargs):
    torch.manual_seed(seed)
    model = Model(
        channels,
        **{key: kwargs.pop(key) for key in ('contract', 'init_cfg', 'spoil') if key in kwargs},
    )
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Data(channels),
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_size=2,
            collate_fn=collate,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='CosineAnnealingLR', T_max=4, by_epoch=True),
        ],
        default_hooks=dict(
            checkpoint=dict(type='mmrsfm.CheckpointHook', interval=1),
            logger=dict(type='LoggerHook', interval=1),
        ),
        custom_hooks=[dict(type='mmrsfm.PretrainedGuardHook')],
        default_scope='mmengine',
        experiment_name=f'run{work_dir.name}{torch.rand(1).item()}',
        randomness=dict(seed=seed),
        log_level='WARNING',
        **kwargs,
    )


@pytest.fixture
def safe():
    before = copy.copy(CheckpointLoader._schemes)
    from mmrsfm.engine import safe_loading

    safe_loading.enable()
    yield
    CheckpointLoader._schemes = before


def states_equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_resume_goes_on_as_if_never_interrupted(tmp_path, safe):
    whole = runner(tmp_path / 'whole', epochs=4)
    whole.train()
    middle = str(tmp_path / 'whole' / 'epoch_2.pth')
    resumed = runner(tmp_path / 'second', epochs=4, load_from=middle, resume=True)
    resumed.train()
    assert resumed.iter == whole.iter == 8
    moments, expected_moments = (
        r.optim_wrapper.state_dict()['state'][0]['exp_avg'] for r in (resumed, whole)
    )
    assert torch.equal(moments, expected_moments)
    # MMEngine got real buffers, with the history of the first run.
    for name in ('train/loss', 'train/lr'):
        history, expected = (r.message_hub.get_scalar(name).data[0] for r in (resumed, whole))
        assert len(history) == 8 and history.tolist() == expected.tolist()
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    assert states_equal(resumed.model.state_dict(), whole.model.state_dict())


def test_the_config_in_a_checkpoint_is_never_run(tmp_path, safe):
    first = runner(tmp_path / 'first', epochs=1)
    first.train()
    path = tmp_path / 'first' / 'epoch_1.pth'
    mark = tmp_path / 'mark'
    content = torch.load(path, weights_only=False)
    for key in ('config', 'cfg'):
        content['meta'][key] = f'open({str(mark)!r}, "w").close()\n'
    torch.save(content, path)
    resumed = runner(tmp_path / 'second', epochs=2, load_from=str(path), resume=True)
    resumed.train()
    assert resumed.epoch == 2 and not mark.exists()


def test_the_attack_on_the_config_is_real(tmp_path, monkeypatch):
    # ... where the safe reader is not on.
    monkeypatch.setattr(CheckpointLoader, '_schemes', {'': load_from_local})
    first = runner(tmp_path / 'first', epochs=1)
    first.train()
    path = tmp_path / 'first' / 'epoch_1.pth'
    mark = tmp_path / 'mark'
    content = torch.load(path, weights_only=False)
    content['meta']['config'] = f'__import__("pathlib").Path({str(mark)!r}).touch()\n'
    torch.save(content, path)
    resumed = runner(tmp_path / 'second', epochs=2, load_from=str(path), resume=True)
    resumed.load_or_resume()
    assert mark.exists()


@pytest.mark.parametrize('way', ['resume', 'load_from', 'Pretrained', 'mmrsfm.Pretrained'])
def test_every_way_of_loading_refuses_code(tmp_path, safe, way):
    mark = tmp_path / 'mark'

    class Evil:
        def __reduce__(self):
            return eval, (f'open({str(mark)!r}, "w").close()',)

    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': Model().state_dict(), 'meta': {'epoch': 1, 'x': Evil()}}, path)
    if 'Pretrained' in way:
        run = runner(tmp_path, init_cfg=dict(type=way, checkpoint=str(path)))
    else:
        run = runner(tmp_path, load_from=str(path), resume=way == 'resume')
    with pytest.raises(UnsafeCheckpointError, match=r'builtins\.eval'):
        run.train()
    assert not mark.exists()


def test_every_prefix_is_redirected(safe):
    from mmrsfm.engine.safe_loading import load_from_safe_reader

    assert set(CheckpointLoader._schemes.values()) == {load_from_safe_reader}
    assert {'', 'http://', 'https://', 'torchvision://', 'pavi://'} <= set(
        CheckpointLoader._schemes
    )


def test_a_bare_import_changes_nothing_and_custom_imports_do():
    code = (
        'import mmengine.runner as r, mmrsfm, mmrsfm.checkpoints, mmrsfm.engine\n'
        'from mmengine.config import Config\n'
        'loader = r.CheckpointLoader._get_checkpoint_loader\n'
        'assert loader("x.pth").__name__ == "load_from_local"\n'
        'from mmengine.utils import import_modules_from_strings\n'
        'import_modules_from_strings(["mmrsfm.engine.safe_loading"])\n'
        'assert loader("x.pth").__name__ == "load_from_safe_reader"\n'
        'assert loader("https://x").__name__ == "load_from_safe_reader"\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


# The guard.


@pytest.fixture
def pretrained(tmp_path):
    """A checkpoint of a short run, with its contract."""
    run = runner(tmp_path / 'pretraining', epochs=1, contract=CONTRACT)
    run.train()
    path = tmp_path / 'pretraining' / 'epoch_1.pth'
    assert read_checkpoint(path)['meta']['mmrsfm_contract'] == CONTRACT
    return str(path)


def init(path, **kwargs):
    return dict(type='mmrsfm.Pretrained', checkpoint=path, **kwargs)


def test_guard_is_content_with_a_good_load(tmp_path, pretrained):
    run = runner(tmp_path / 'b', epochs=1, contract=CONTRACT, init_cfg=init(pretrained))
    run.train()
    assert run.epoch == 1


def test_guard_sees_weights_that_were_initialised_again(tmp_path, pretrained):
    run = runner(tmp_path / 'b', contract=CONTRACT, init_cfg=init(pretrained), spoil=True)
    with pytest.raises(IncompleteLoadError, match=r'backbone \(Backbone\).*conv\.bias'):
        run.train()


def test_guard_sees_a_class_that_never_runs_the_initialiser(tmp_path, pretrained, monkeypatch):
    monkeypatch.setattr(Backbone, 'init_weights', lambda self: None)
    run = runner(tmp_path / 'b', contract=CONTRACT, init_cfg=init(pretrained))
    with pytest.raises(IncompleteLoadError, match='never run'):
        run.train()


def test_guard_compares_the_imagery(tmp_path, pretrained):
    other = {**CONTRACT, 'scale': 1e-4, 'sensor': 'other'}
    run = runner(tmp_path / 'b', contract=other, init_cfg=init(pretrained))
    with pytest.raises(ContractError) as error:
        run.train()
    for part in ('scale: the checkpoint has 1.0, this run 0.0001', "'other'", 'ignore='):
        assert part in str(error.value)
    adapt = dict(ignore=['scale', 'sensor'])
    run = runner(tmp_path / 'c', 1, contract=other, init_cfg=init(pretrained, adapt=adapt))
    run.train()


def test_guard_compares_what_init_cfg_said_with_what_the_run_does(tmp_path, pretrained):
    four = {**CONTRACT, 'band_names': ['B', 'G', 'R', 'N']}
    said = init(pretrained, adapt='by_name', contract=dict(band_names=four['band_names']))
    runner(tmp_path / 'b', 1, channels=4, contract=four, init_cfg=said).train()
    said['contract'] = dict(band_names=['R', 'G', 'B', 'N'])
    run = runner(tmp_path / 'c', 1, channels=4, contract=four, init_cfg=said)
    with pytest.raises(ContractError, match=r'init_cfg\.contract'):
        run.train()


def test_guard_leaves_resumed_and_loaded_runs_alone(tmp_path, pretrained, safe):
    other = {**CONTRACT, 'scale': 1e-4}
    settings = dict(contract=other, init_cfg=init(pretrained), load_from=pretrained)
    runner(tmp_path / 'b', 1, **settings).train()
    runner(tmp_path / 'c', 2, **settings, resume=True).train()


def test_registered_where_configs_look():
    from mmengine.registry import HOOKS

    assert HOOKS.get('mmrsfm.PretrainedGuardHook').__name__ == 'PretrainedGuardHook'
    assert MODELS.get('mmrsfm.Pretrained') is None
