# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""tools/analysis_tools/benchmark.py: what it prints and writes; no time is asserted."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmrsfm.errors import ConfigError
from tests.test_datasets.imagery import numbers, write_tif

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'benchmark.py'

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmrsfm'])
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmrsfm.CrossScaleViT',
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
        img_size=32,
        out_type='avg_featmap',
    ),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('benchmark_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG)
    return str(path)


@pytest.mark.slow  # the parts of the command are tested one by one
def test_the_command_from_a_foreign_folder(config, tmp_path):
    command = [sys.executable, str(TOOL), config, '--floor']
    command += ['--batch-size', '2', '--iters', '3', '--warmup', '1', '--threads', '1']
    command += [
        '--device',
        'cpu',
        '--json',
        'out.json',
        '--cfg-options',
        'model.head.num_classes=7',
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for word in (
        'forward',
        'backward',
        'optimizer',
        'images/s',
        'floor',
        'above it',
        'peak memory',
    ):
        assert word in result.stdout
    figures = json.loads((tmp_path / 'out.json').read_text())
    assert (figures['batch_size'], figures['threads'], figures['data']) == (2, 1, 'random')
    assert set(figures['seconds']) == {'data_wait', 'forward', 'backward', 'optimizer', 'step'}
    assert figures['memory']['peak'] > figures['memory']['before'] > 0
    assert figures['floor']['gflops'] > 0


def run(tool, monkeypatch, tmp_path, *argv):
    monkeypatch.setattr(tool, 'probe_memory', lambda *args: dict(peak=2, before=1))
    out = tmp_path / 'figures.json'
    args = ['--device', 'cpu', '--batch-size', '1', '--iters', '2', '--json', str(out), *argv]
    code = tool.command_line.run_command(tool.main, tool.build_parser(), args)
    return code, json.loads(out.read_text()) if out.exists() else None


def test_versus_a_config(tool, config, monkeypatch, tmp_path):
    options = ['--cfg-options', 'model.head.num_classes=7']
    code, figures = run(tool, monkeypatch, tmp_path, config, '--versus', config, *options)
    assert code == 0
    assert figures['versus']['memory'] == dict(peak=2, before=1)
    assert len(figures['versus']['pairs']) == 2
    _, plain = run(tool, monkeypatch, tmp_path, config)
    # Four classes more, of 16 weights and a bias each.
    assert figures['parameters'] - plain['parameters'] == 4 * 17


def test_versus_itself_with_other_values(tool, config, monkeypatch, tmp_path):
    built = []
    step = tool.TrainingStep

    def spy(cfg, **options):
        built.append((cfg.model.head.num_classes, cfg.optim_wrapper.optimizer.lr))
        return step(cfg, **options)

    monkeypatch.setattr(tool, 'TrainingStep', spy)
    argv = ['--cfg-options', 'optim_wrapper.optimizer.lr=0.5', 'model.head.num_classes=5',
            '--versus-options', 'model.head.num_classes=7']  # fmt: skip
    code, figures = run(tool, monkeypatch, tmp_path, config, *argv)
    assert code == 0
    assert built == [(5, 0.5), (7, 0.5)]
    assert figures['versus']['what'].endswith('model.head.num_classes=7')
    assert figures['versus']['memory'] == dict(peak=2, before=1)
    words = ['benchmark.py', 'config.py', *argv, '--iters', '2']
    assert tool.raw_options(words, '--versus-options') == argv[-1:]
    assert tool.raw_options(words, '--cfg-options') == argv[1:3]
    assert tool.raw_options(words[:2], '--cfg-options') == []


def test_versus_a_command(tool, config, monkeypatch, tmp_path):
    versus = 'echo warming up; echo 0.25'
    code, figures = run(tool, monkeypatch, tmp_path, config, '--versus', versus)
    assert code == 0
    assert figures['versus']['seconds']['median'] == 0.25
    step = figures['seconds']['step']
    assert figures['versus']['ratio']['min'] == pytest.approx(step['min'] / 0.25)
    assert 'floor' not in figures


def test_profile_lists_operators(tool, config, monkeypatch, tmp_path):
    code, figures = run(tool, monkeypatch, tmp_path, config, '--profile')
    assert code == 0
    assert 'aten::addmm' in figures['profile']


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('echo', 'it printed nothing'),
        ('echo fast', 'must print a number of seconds'),
        ('echo 1; exit 3', 'ended with 3'),
    ],
)
def test_a_command_must_print_seconds(tool, command, words):
    with pytest.raises(ConfigError, match=words):
        tool.run_command(command)


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['nowhere.py'], 'nowhere.py does not exist'),
        (['CONFIG', '--versus', 'nowhere.py'], 'nowhere.py does not exist'),
        (['CONFIG', '--iters', '0'], '--iters must be at least 1'),
        (['CONFIG', '--data', 'real'], 'no train_dataloader'),
    ],
)
def test_mistakes_are_one_sentence(tool, config, monkeypatch, tmp_path, capsys, argv, words):
    argv = [config if word == 'CONFIG' else word for word in argv]
    code, figures = run(tool, monkeypatch, tmp_path, *argv)
    assert (code, figures) == (2, None)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize('text', ['3,64', '3,64,x', '0,64,64', '3x64x64'])
def test_input_shapes_are_checked(tool, text, capsys):
    with pytest.raises(SystemExit):
        tool.build_parser().parse_args(['c.py', '--input-shape', text])
    assert 'for example 13,128,128' in capsys.readouterr().err


@pytest.mark.parametrize('what', ['forward', 'train'])
def test_the_backbone_alone(tool, config, monkeypatch, tmp_path, what):
    argv = [config, '--backbone', what, '--input-shape', '3,48,32', '--floor']
    code, figures = run(tool, monkeypatch, tmp_path, *argv, '--versus', config)
    assert code == 0
    assert ('backward' in figures['seconds']) == (what == 'train')
    assert 'optimizer' not in figures['seconds']
    assert figures['floor']['gflops'] > 0 and len(figures['versus']['pairs']) == 2


def test_a_config_of_a_backbone_only(tool, monkeypatch, tmp_path):
    path = tmp_path / 'backbone.py'
    path.write_text(
        "backbone = dict(type='mmrsfm.InternImage', init_cfg=dict(type='mmrsfm.Pretrained', "
        "checkpoint='absent.pth'), arch=dict(channels=16, depths=[1, 1], groups=[1, 2]), "
        'out_indices=[0, 1])'
    )
    argv = [str(path), '--backbone', 'train', '--input-shape', '3,32,32']
    code, figures = run(tool, monkeypatch, tmp_path, *argv)
    assert code == 0 and figures['seconds']['backward']['median'] > 0


def test_the_backbone_needs_a_size_and_a_backbone(tool, config, monkeypatch, tmp_path, capsys):
    assert run(tool, monkeypatch, tmp_path, config, '--backbone', 'train') == (2, None)
    assert 'needs --input-shape' in capsys.readouterr().err
    path = tmp_path / 'none.py'
    path.write_text("model = dict(type='X')")
    argv = [str(path), '--backbone', 'train', '--input-shape', '3,32,32']
    assert run(tool, monkeypatch, tmp_path, *argv) == (2, None)
    assert 'no model.backbone' in capsys.readouterr().err


def test_the_loader_alone(tool, monkeypatch, tmp_path, capsys):
    for number in range(3):
        write_tif(tmp_path / 'tiles' / f'{number}.tif', numbers(2, 8, 8), names=['VH', 'VV'])
    path = tmp_path / 'loader.py'
    path.write_text(
        "default_scope = 'mmpretrain'\n"
        'train_dataloader = dict(batch_size=2, num_workers=0, collate_fn=dict(type='
        "'default_collate'), sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict("
        f"type='mmrsfm.TileDataset', data_root={str(tmp_path)!r}, data_prefix=dict(img_path='tiles'"
        "), pipeline=[dict(type='mmrsfm.LoadMultiBandImage'), dict(type='mmrsfm.PackInputs')]))"
    )
    code, figures = run(tool, monkeypatch, tmp_path, str(path), '--loader', '--versus', str(path))
    assert code == 0 and figures['data'] == 'real' and len(figures['versus']['pairs']) == 2
    assert set(figures['seconds']) == {'data_wait', 'step'}
    with pytest.raises(ConfigError, match='without a model'):
        tool.main(tool.build_parser().parse_args([str(path), '--loader', '--floor']))
