# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""decoder_reuse.py: the configs of a study, what it refuses, its table, and going on."""

import importlib.util
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrsfm.engine.run_config import load_config
from mmrsfm.errors import ConfigError, LaunchError

REPO = Path(__file__).resolve().parents[2]
TOOL = REPO / 'tools' / 'analysis_tools' / 'decoder_reuse.py'
DEMO = REPO / 'configs' / 'mtp' / 'demo'
ROTATED = DEMO / 'rvsa-tiny_mtp-demo-pre_oriented-rcnn_1xb4-40i_yellowstone-demo-192px.py'
KINDS = {'oriented-rcnn': 'rotated', 'mask-rcnn': 'instance', 'upernet': 'semantic'}


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('decoder_reuse', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_kind_of_decoder_is_seen_from_the_model(tool):
    for name, task in KINDS.items():
        (file,) = DEMO.glob(f'*_{name}_1xb4-40i_*')
        assert tool.task_of(load_config(file)) == task
    (boxes,) = DEMO.glob('*faster-rcnn_*_neon-demo-*')
    with pytest.raises(ConfigError, match='no decoder of MTP fits it'):
        tool.task_of(load_config(boxes))


def test_only_decoder_and_seed_differ(tool):
    base = load_config(ROTATED)
    before = base.to_dict()
    fresh = tool.make_config(base, 3, 'full.pth', None).to_dict()
    reused = tool.make_config(base, 3, 'full.pth', 'start.pth').to_dict()
    assert base.to_dict() == before
    assert fresh['model']['backbone'].pop('init_cfg') == {
        'type': 'mmrsfm.Pretrained', 'checkpoint': 'full.pth',
    }  # fmt: skip
    assert reused['model']['backbone'].pop('init_cfg') is None
    assert (fresh.pop('load_from'), reused.pop('load_from')) == (None, 'start.pth')
    assert fresh == reused
    assert fresh['randomness']['seed'] == 3
    base.test_dataloader = None
    with pytest.raises(ConfigError, match='no test_dataloader'):
        tool.make_config(base, 0, 'full.pth', None)


def test_a_study_goes_on_where_it_was(tool, tmp_path, monkeypatch):
    calls, converted = [], []

    def run_once(folder, config, args):
        calls.append(folder.name)
        if len(calls) == 4:
            raise LaunchError('cut off')
        cfg = Config.fromfile(config)
        return {'dota/AP50': 0.1 * cfg.randomness.seed + bool(cfg.load_from), 'time': 3.0}

    def convert(checkpoint, config, task, dataset, target):
        converted.append((task, dataset, target.name))

    monkeypatch.setattr(tool, 'run_once', run_once)
    monkeypatch.setattr(tool, 'convert', convert)
    full = tmp_path / 'full.pth'
    full.write_bytes(b'weights')
    words = [str(full), str(ROTATED), '--seeds', '0', '2', '--dataset', 'neon', '--work-dir']
    args = tool.build_parser().parse_args([*words, str(tmp_path / 'study')])
    with pytest.raises(LaunchError):
        tool.main(args)
    tool.main(args)
    assert len(calls) == 7 and len(set(calls)) == 6
    assert {one[:2] for one in converted} == {('rotated', None), ('rotated', 'neon')}
    table = (tmp_path / 'study' / 'results.md').read_text().splitlines()
    assert table[2:] == [
        '| rotated | dota/AP50 | fresh | 0.100 ± 0.141 | 0.000, 0.200 |',
        '| rotated | dota/AP50 | reused | 1.100 ± 0.141 | 1.000, 1.200 |',
        '| rotated | dota/AP50 | reused with last layers | 1.100 ± 0.141 | 1.000, 1.200 |',
    ]
    assert len(json.loads((tmp_path / 'study' / 'results.json').read_text())) == 6
    full.write_bytes(b'other weights')
    with pytest.raises(ConfigError, match='of another config or checkpoint'):
        tool.main(args)
    args.checkpoint = str(tmp_path / 'absent.pth')
    with pytest.raises(ConfigError, match='does not exist'):
        tool.main(args)


def test_a_dry_run_writes_configs(tool, tmp_path, capsys):
    full = tmp_path / 'full.pth'
    full.write_bytes(b'weights')
    words = [str(full), str(ROTATED), '--dry-run', '--work-dir', str(tmp_path / 'study')]
    tool.main(tool.build_parser().parse_args(words))
    written = capsys.readouterr().out.split()
    assert [Path(name).stem.rpartition('px_')[2] for name in written] == [
        'fresh_seed0', 'reused_seed0',
    ]  # fmt: skip
    assert Config.fromfile(written[0]).load_from is None
