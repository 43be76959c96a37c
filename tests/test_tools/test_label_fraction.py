# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""label_fraction.py: the configs of a study, what it refuses, its table, and going on."""

import importlib.util
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrsfm.engine.run_config import load_config
from mmrsfm.errors import ConfigError, LaunchError

REPO = Path(__file__).resolve().parents[2]
TOOL = REPO / 'tools' / 'analysis_tools' / 'label_fraction.py'
FOLDER = REPO / 'configs' / 'sar_w_mixmae' / 'bigearthnetv2'
PRETRAINED = FOLDER / 'mixmim-base_sarw-pre_8xb128-coslr-50e_bigearthnetv2-s1-128px.py'
SCRATCH = FOLDER / 'mixmim-tiny_scratch_1xb8-coslr-50e_bigearthnetv2-s1-128px.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('label_fraction', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_start_labels_and_seed_differ(tool):
    base = load_config(PRETRAINED)
    before = base.to_dict()
    start = tool.make_config(base, 0.25, 3, 'pretrained', None).to_dict()
    random = tool.make_config(base, 0.25, 3, 'random', None).to_dict()
    assert base.to_dict() == before
    assert random['model']['backbone'].pop('init_cfg') is None
    assert start['model']['backbone'].pop('init_cfg') == before['model']['backbone']['init_cfg']
    assert start == random
    wrapped = start['train_dataloader']['dataset']
    assert wrapped['dataset'] == before['train_dataloader']['dataset']
    assert (wrapped['type'], wrapped['fraction'], wrapped['seed']) == (
        'mmrsfm.LabelFraction', 0.25, 3,
    )  # fmt: skip
    assert start['randomness']['seed'] == 3
    for name in ('val_dataloader', 'test_dataloader'):
        assert start[name] == before[name]


def test_another_checkpoint_has_another_digest(tool):
    cfg = tool.make_config(load_config(PRETRAINED), 1.0, 0, 'pretrained', 'mine.pth')
    assert cfg.model.backbone.init_cfg.to_dict() == {
        'type': 'mmrsfm.Pretrained', 'checkpoint': 'mine.pth',
    }  # fmt: skip
    cfg = tool.make_config(load_config(SCRATCH), 1.0, 0, 'pretrained', 'mine.pth')
    assert cfg.model.backbone.init_cfg.checkpoint == 'mine.pth'


def test_what_it_refuses(tool):
    with pytest.raises(ConfigError, match='give --checkpoint'):
        tool.make_config(load_config(SCRATCH), 1.0, 0, 'pretrained', None)
    cfg = load_config(PRETRAINED)
    cfg.test_dataloader = cfg.val_dataloader
    with pytest.raises(ConfigError, match='validates on its test data'):
        tool.make_config(cfg, 1.0, 0, 'random', None)
    cfg.pop('val_dataloader')
    with pytest.raises(ConfigError, match='no val_dataloader'):
        tool.make_config(cfg, 1.0, 0, 'random', None)
    with pytest.raises(LaunchError, match='ended with 3'):
        tool.call(['sh', '-c', 'exit 3'])


def test_a_study_goes_on_where_it_was(tool, tmp_path, monkeypatch, capsys):
    calls = []

    def run_once(folder, config, args):
        calls.append(folder.name)
        cfg = Config.fromfile(config)
        if len(calls) == 5:
            raise LaunchError('cut off')
        wrapped = cfg.train_dataloader.dataset
        value = 100 * wrapped.fraction + wrapped.seed + 10 * bool(cfg.model.backbone.init_cfg)
        return {'multi-label/ap_macro': value, 'multi-label/ap/Pastures': 1.0, 'time': 3.0}

    monkeypatch.setattr(tool, 'run_once', run_once)
    words = [str(PRETRAINED), '--fractions', '0.5', '1', '--seeds', '0', '2', '--work-dir']
    args = tool.build_parser().parse_args([*words, str(tmp_path)])
    with pytest.raises(LaunchError):
        tool.main(args)
    tool.main(args)
    assert len(calls) == 9 and len(set(calls)) == 8
    table = (tmp_path / 'results.md').read_text().splitlines()
    assert table[0] == '| labels | start | runs | multi-label/ap_macro |'
    assert table[2:] == [
        '| 100.0% | pretrained | 2 | 111.00 ± 1.41 |', '| 100.0% | random | 2 | 101.00 ± 1.41 |',
        '| 50.0% | pretrained | 2 | 61.00 ± 1.41 |', '| 50.0% | random | 2 | 51.00 ± 1.41 |',
    ]  # fmt: skip
    assert len(json.loads((tmp_path / 'results.json').read_text())) == 8
    args.cfg_options = {'train_cfg.max_epochs': 7}
    with pytest.raises(ConfigError, match='of another config'):
        tool.main(args)


def test_a_run_trains_tests_its_best_and_reads_the_metrics(tool, tmp_path, monkeypatch):
    called = []

    def call(words):
        called.append(words)
        if 'train.py' in words[1]:
            (tmp_path / 'best_x_epoch_3.pth').touch()
        else:
            found = tmp_path / 'test' / '2026'
            found.mkdir(parents=True)
            (found / '2026.json').write_text('{"ap": 1.5, "name": "x"}\n')

    monkeypatch.setattr(tool, 'call', call)
    args = tool.build_parser().parse_args(['config.py', '--amp'])
    assert tool.run_once(tmp_path, tmp_path / 'config.py', args) == {'ap': 1.5}
    assert '--amp' in called[0] and str(tmp_path / 'best_x_epoch_3.pth') in called[1]
    several = tool.command('test', ['a.py', 'b.pth'], ['--amp'], 4)
    assert Path(several[1]).name == 'dist_test.sh' and several[2:] == [
        'a.py',
        'b.pth',
        '4',
        '--amp',
    ]


def test_a_dry_run_writes_configs(tool, tmp_path, capsys):
    words = [str(PRETRAINED), '--dry-run', '--fractions', '0.125', '--work-dir', str(tmp_path)]
    tool.main(tool.build_parser().parse_args(words))
    written = capsys.readouterr().out.split()
    assert [Path(name).stem for name in written] == [
        'pretrained_12.5pct_seed0', 'random_12.5pct_seed0',
    ]  # fmt: skip
    assert Config.fromfile(written[0]).train_dataloader.dataset.fraction == 0.125
