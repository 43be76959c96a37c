# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from mmrsfm.checkpoints import load_pretrained, read_checkpoint
from mmrsfm.engine.atomic_io import write_with_digest as write
from mmrsfm.engine.hooks.encoder_checkpoint_hook import encoder_path
from mmrsfm.engine.run_config import build_runner, find_last_checkpoint, load_config
from mmrsfm.errors import CheckpointWriteError, ConfigError
from mmrsfm.registry import MODELS as OURS
from tests.test_engine.toy import write_config

RVSA = dict(type='mmrsfm.RVSAViT', arch='tiny', img_size=32, patch_size=8)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
    monkeypatch.setattr('os.fsync', lambda handle: None)


@MODELS.register_module()
class BackboneToy(BaseModel):
    """A backbone, and a decoder that learns from toy vectors."""

    def __init__(self, backbone=RVSA, **kwargs):
        super().__init__(**kwargs)
        self.backbone = OURS.build(backbone) if backbone else None
        self.decoder = nn.Linear(8, 1)

    def forward(self, inputs, target=None, index=None, mode='tensor'):
        out = self.decoder(torch.stack(list(inputs)))[:, 0]
        if mode == 'loss':
            shift = sum(p.sum() for p in self.backbone.parameters()) * 1e-6
            return {'loss': ((out - torch.stack(list(target))) ** 2).mean() + shift}
        return [{'out': o, 'index': i} for o, i in zip(out, index, strict=True)]


EXTRA = """
model = dict(type='BackboneToy')
custom_imports['imports'].append('tests.test_engine.test_encoder_checkpoint_hook')
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='distinct', rule='greater'))
custom_hooks = [dict(type='mmrsfm.EncoderCheckpointHook'{options})]
"""


def runner_of(folder, options='', **changes):
    cfg = load_config(write_config(folder, EXTRA.format(options=options)))
    cfg.merge_from_dict({'work_dir': str(folder / 'work'), **changes})
    return build_runner(cfg)


def names(folder):
    return sorted(path.name for path in (folder / 'work').glob('*.pth'))


def test_every_checkpoint_has_its_encoder(tmp_path):
    runner = runner_of(tmp_path)
    runner.train()
    assert names(tmp_path) == [
        'best_distinct_epoch_1.pth',
        'encoder_best_distinct_epoch_1.pth',
        'encoder_epoch_3.pth',
        'epoch_3.pth',
    ]
    whole = read_checkpoint(tmp_path / 'work' / 'epoch_3.pth')
    alone = read_checkpoint(tmp_path / 'work' / 'encoder_epoch_3.pth')
    assert set(alone) == {'state_dict', 'meta'}  # no optimizer
    wanted = {k: v for k, v in whole['state_dict'].items() if k.startswith('backbone.')}
    assert set(alone['state_dict']) == set(wanted)
    assert all(torch.equal(alone['state_dict'][k], v) for k, v in wanted.items())
    assert alone['meta']['mmrsfm_traits'] == whole['meta']['mmrsfm_traits']
    assert (alone['meta']['epoch'], alone['meta']['iter']) == (2, 15) or alone['meta']['iter'] == 15
    backbone = OURS.build(RVSA)
    report = load_pretrained(backbone, alone)
    assert report.layout == 'mmrsfm'
    assert not report.missing
    assert find_last_checkpoint(tmp_path / 'work').name == 'epoch_3.pth'


def test_a_resumed_run_goes_on_cleaning_up(tmp_path):
    runner_of(tmp_path, **{'train_cfg.max_epochs': 2}).train()
    runner = runner_of(tmp_path, resume=True)
    runner.train()
    assert [one for one in names(tmp_path) if 'best' not in one] == [
        'encoder_epoch_3.pth',
        'epoch_3.pth',
    ]


@pytest.mark.slow
def test_in_the_layout_of_the_authors_and_kept(tmp_path):
    runner_of(
        tmp_path, ", layout='mtp_encoder', keep_all=True", **{'train_cfg.max_epochs': 2}
    ).train()
    assert 'encoder_epoch_1.pth' in names(tmp_path)
    assert 'epoch_1.pth' not in names(tmp_path)
    content = read_checkpoint(tmp_path / 'work' / 'encoder_epoch_2.pth')
    assert 'patch_embed.proj.weight' in content['model']
    assert load_pretrained(OURS.build(RVSA), content).layout == 'mtp_encoder'


def test_what_cannot_be(tmp_path, monkeypatch):
    runner = runner_of(tmp_path)
    runner.model.backbone = None
    with pytest.raises(ConfigError, match='BackboneToy has no backbone'):
        runner.train()

    def full(path, data):
        raise OSError('no space left')

    monkeypatch.setattr('mmrsfm.engine.hooks.encoder_checkpoint_hook.write_with_digest', full)
    with pytest.raises(CheckpointWriteError, match=r'encoder_epoch_1\.pth could not be written'):
        runner_of(tmp_path).train()
    assert encoder_path('a/epoch_1.pth').name == 'encoder_epoch_1.pth'


def test_a_kill_between_a_checkpoint_and_its_encoder(tmp_path, monkeypatch):
    """The resumed run writes the encoder that is missing, of the averages that were saved."""

    def killed(path, data):
        if path.name == 'encoder_epoch_2.pth':
            raise KeyboardInterrupt
        write(path, data)

    module = 'mmrsfm.engine.hooks.encoder_checkpoint_hook.write_with_digest'
    options = "), dict(type='EMAHook', momentum=0.5"
    with monkeypatch.context() as patch:
        patch.setattr(module, killed)
        with pytest.raises(KeyboardInterrupt):
            runner_of(tmp_path, options).train()
    assert 'encoder_epoch_2.pth' not in names(tmp_path)
    runner = runner_of(tmp_path, options, resume=True)
    runner.register_hook(StopHook())
    with pytest.raises(StopIteration):
        runner.train()
    whole = read_checkpoint(tmp_path / 'work' / 'epoch_2.pth')
    alone = read_checkpoint(tmp_path / 'work' / 'encoder_epoch_2.pth')
    for name, value in alone['state_dict'].items():
        assert torch.equal(value, whole['state_dict'][name])
    assert alone['meta']['iter'] == 10


class StopHook(Hook):
    """Ends a run before its first step."""

    def before_train_epoch(self, runner):
        raise StopIteration
