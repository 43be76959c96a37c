# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""tools/train.py, test.py and print_config.py, run in this process."""

import importlib.util
import json
import os
import pickle

import pytest
import torch
from mmengine.runner import CheckpointLoader, Runner

from mmrsfm.engine import command_line
from tests.test_engine.toy import REPO, write_config


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f'tools_{name}', REPO / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Runs a tool as a process would, in an empty folder; returns the exit code."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.chdir(tmp_path)
    schemes = dict(CheckpointLoader._schemes)
    names = iter(range(100))

    def run(name, *arguments):
        module = load_tool(name)
        arguments = [str(argument) for argument in arguments]
        if name != 'print_config' and '--cfg-options' not in arguments:
            arguments.append('--cfg-options')
        if name != 'print_config':
            # MMEngine keeps a message hub per name, and names runs by the second.
            arguments.append(f'experiment_name=run{next(names)}')
        return command_line.run_command(module.main, module.build_parser(), arguments)

    yield run
    CheckpointLoader._schemes = schemes


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


def logs(folder):
    return '\n'.join(file.read_text() for file in sorted(folder.glob('*/*.log')))


def test_train_resume_and_test(tool, config, tmp_path):
    work = tmp_path / 'work'
    short = ('--cfg-options', 'train_cfg.max_epochs=1')
    assert tool('train', config, '--work-dir', work, '--resume', *short) == 0
    assert (work / 'epoch_1.pth').is_file()  # nothing to resume: a new run
    assert tool('train', config, '--work-dir', work, '--resume') == 0
    assert 'resumed epoch: 1, iter: 5' in logs(work)
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_3.pth')
    assert (
        tool('train', config, '--work-dir', tmp_path / 'b', '--resume', work / 'epoch_2.pth') == 0
    )
    weights = [
        torch.load(folder / 'epoch_3.pth', weights_only=False)['state_dict']
        for folder in (work, tmp_path / 'b')
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    out = tmp_path / 'predictions.pkl'
    # As users of the published systems test: the validation of the config is switched off.
    options = ('--cfg-options', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')
    code = tool(
        'test', config, work / 'epoch_3.pth', '--work-dir', work / 'test', '--out', out, *options
    )
    assert code == 0
    assert len(pickle.loads(out.read_bytes())) == 4
    metrics = json.loads(next((work / 'test').glob('*/*.json')).read_text())
    assert metrics['acc'] == 4
    assert tool('test', config, '--work-dir', work / 'init') == 0  # without a checkpoint
    assert 'No CHECKPOINT' in logs(work / 'init')


def test_default_work_dir_and_print_config(tool, config, tmp_path, capsys):
    assert tool('train', config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert (tmp_path / 'work_dirs/toy/epoch_1.pth').is_file()
    saved = tmp_path / 'whole.py'
    capsys.readouterr()
    code = tool(
        'print_config', config, '--save-path', saved, '--cfg-options', 'train_cfg.max_epochs=7'
    )
    assert code == 0
    assert 'max_epochs=7' in capsys.readouterr().out
    assert 'mmrsfm.CheckpointHook' in saved.read_text()


def test_base_by_package_name(tool, tmp_path):
    path = tmp_path / 'by_name.py'
    path.write_text("_base_ = 'mmrsfm::_base_/default_runtime.py'\n")
    assert tool('print_config', path) == 0


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('train', ['nope.py'], 'the config nope.py does not exist'),
        ('train', ['broken.py'], 'the config broken.py cannot be read'),
        ('train', ['imports.py'], 'imports what is missing'),
        ('train', ['scope.py'], "default_scope='mmnothing', which cannot be imported"),
        ('train', ['toy.py', '--resume', 'nope.pth'], '--resume: the checkpoint nope.pth does not'),
        ('train', ['toy.py', '--work-dir', 'toy.py/x'], 'work folder toy.py/x cannot be made'),
        ('train', ['toy.py', '--auto-scale-lr'], '--auto-scale-lr needs auto_scale_lr='),
        ('train', ['toy.py', '--launcher', 'slurm'], 'SLURM_PROCID is not set'),
        ('train', ['toy.py', '--cfg-options', 'load_from=no.pth'], 'checkpoint no.pth does not'),
        (
            'train',
            ['toy.py', '--cfg-options', 'train_dataloader.dataset.size=0'],
            'finds no samples',
        ),
        ('train', ['toy.py', '--amp', '--cfg-options', 'optim_wrapper.type=X'], '--amp replaces'),
        ('test', ['toy.py', 'no.pth'], 'CHECKPOINT: the checkpoint no.pth does not exist'),
        ('test', ['toy.py', '--out', 'x.txt'], '--out x.txt: must end in .pkl'),
        ('test', ['toy.py', '--tta'], 'the config has no tta_model and no tta_pipeline'),
        ('test', ['toy.py', '--show-dir', 'x'], 'the config needs a hook that draws'),
        (
            'test',
            ['toy.py', '--cfg-options', 'test_cfg=None'],
            'toy.py has no test_cfg: there is nothing to test',
        ),
    ],
)
def test_wrong_use_is_one_sentence(
    tool, config, tmp_path, capsys, monkeypatch, name, arguments, message
):
    for variable in ('SLURM_PROCID', 'MMRSFM_DEBUG'):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / 'broken.py').write_text('a = (')
    (tmp_path / 'imports.py').write_text("custom_imports = dict(imports=['no_such_package'])")
    (tmp_path / 'scope.py').write_text("default_scope = 'mmnothing'")
    assert tool(name, *arguments) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert 'Traceback' not in err


def test_option_without_a_value(tool, config, capsys):
    with pytest.raises(SystemExit) as error:
        tool('train', config, '--cfg-options', 'train_cfg.max_epochs')
    assert error.value.code == 2
    assert "--cfg-options: 'train_cfg.max_epochs' is not KEY=VALUE" in capsys.readouterr().err


def test_exit_codes(tool, config, monkeypatch, capsys):
    assert tool('train', 'nope.py') == 2
    assert tool('train', config, '--cfg-options', 'train_dataloader.dataset.bad=[1]') == 1
    assert 'tile_1.tif: band B02: is truncated' in capsys.readouterr().err
    monkeypatch.setenv('MMRSFM_DEBUG', '1')
    with pytest.raises(RuntimeError, match='does not exist'):
        tool('train', 'nope.py')
    monkeypatch.delenv('MMRSFM_DEBUG')
    with pytest.raises(RuntimeError, match='does not exist'):
        tool('train', 'nope.py', '--debug')

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, 'train', interrupted)
    assert tool('train', config) == 130
    assert 'interrupted' in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='shows what happens without a GPU')
def test_mixed_precision_on_the_cpu(tool, config, tmp_path):
    work = tmp_path / 'work'
    options = ('--cfg-options', 'train_cfg.max_epochs=1')
    assert tool('train', config, '--work-dir', work, '--amp', *options) == 0
    written = (work / 'toy.py').read_text()
    assert 'mmrsfm.BF16OptimWrapper' in written
    assert 'loss_scale' not in written
    # A schedule with mixed precision runs on a CPU, too.
    options = (*options, 'optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.loss_scale=dynamic')
    assert tool('train', config, '--work-dir', work, *options) == 0


def test_stock_config_of_another_library(tool, tmp_path):
    """A config of mmdet, given by its path, as a user of mmdet has it."""
    pytest.importorskip('mmdet')
    import mmdet
    import numpy as np
    from PIL import Image

    base = os.path.join(os.path.dirname(mmdet.__file__), '.mim/configs/retinanet')
    if not os.path.isdir(base):
        pytest.skip('this installation of mmdet has no configs')
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('a', 'b'):
        Image.fromarray(np.random.randint(0, 255, (64, 64, 3), np.uint8)).save(
            images / f'{name}.png'
        )
    annotations = {
        'images': [
            {'id': i, 'file_name': f'{name}.png', 'width': 64, 'height': 64}
            for i, name in enumerate('ab')
        ],
        'annotations': [
            {'id': i, 'image_id': i, 'category_id': 1, 'bbox': [8, 8, 30, 30], 'area': 900,
             'iscrowd': 0}
            for i in range(2)
        ],
        'categories': [{'id': 1, 'name': 'person'}],
    }  # fmt: skip
    (tmp_path / 'a.json').write_text(json.dumps(annotations))
    data = (
        f"dataset=dict(data_root='{tmp_path}/', ann_file='a.json', data_prefix=dict(img='images/'))"
    )
    loader = f'dict(num_workers=0, persistent_workers=False, {data})'
    path = tmp_path / 'stock.py'
    path.write_text(
        f"_base_ = '{base}/retinanet_r18_fpn_1x_coco.py'\n"
        f'train_dataloader = {loader}\nval_dataloader = {loader}\ntest_dataloader = {loader}\n'
        f"val_evaluator = dict(ann_file='{tmp_path}/a.json')\ntest_evaluator = val_evaluator\n"
        'model = dict(backbone=dict(init_cfg=None),'
        ' data_preprocessor=dict(pad_size_divisor=32))\n'
    )
    options = ['train_cfg.max_epochs=1']
    for split in ('train', 'val', 'test'):
        options += [
            f'{split}_dataloader.dataset.pipeline.{"2" if split == "train" else "1"}.scale=(64,64)'
        ]
    assert tool('train', path, '--work-dir', tmp_path / 'w', '--cfg-options', *options) == 0
    code = tool(
        'test', path, tmp_path / 'w/epoch_1.pth', '--work-dir', tmp_path / 'w',
        '--out', tmp_path / 'o.pkl', '--show-dir', tmp_path / 'drawn', '--cfg-options', *options,
    )  # fmt: skip
    assert code == 0
    assert len(pickle.loads((tmp_path / 'o.pkl').read_bytes())) == 2
    assert sorted(file.name for file in (tmp_path / 'drawn').glob('*.png')) == ['a.png', 'b.png']
