# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""geobench.py: any backbone on any set, its configs, its table, what it skips and refuses."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmrsfm.datasets.geobench_files import read_task
from mmrsfm.engine.run_config import build_runner, load_config, set_dataloader_defaults
from mmrsfm.errors import ConfigError, LaunchError
from mmrsfm.registry import MODELS
from tests.formats import make_geobench

REPO = Path(__file__).resolve().parents[2]
TOOL = REPO / 'tools' / 'analysis_tools' / 'geobench.py'
CONFIGS = REPO / 'configs' / 'mp_mae' / 'geobench'
BACKBONES = REPO / 'configs' / '_base_' / 'backbones'
MODEL = 'convnextv2-atto-p8_mp-mae-pre'
EUROSAT = CONFIGS / f'{MODEL}_1xb64-accum16-coslr-100e_m-eurosat.py'
CASHEW = CONFIGS / f'{MODEL}_unet_1xb32-200e_m-cashew-plant.py'
SMALL = [
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
    'train_dataloader.batch_size=2', 'train_cfg.max_epochs=1', 'val_cfg=None',
    'val_dataloader=None', 'val_evaluator=None', 'default_hooks.checkpoint.interval=1',
]  # fmt: skip


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('geobench_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    names = ('m-eurosat', 'm-bigearthnet', 'm-cashew-plant')
    return make_geobench(tmp_path_factory.mktemp('geobench'), names=names, count=4, size=32)


def in_process(seen):
    """What trains and tests two steps without other processes."""

    def run_once(folder, config, args):
        cfg = load_config(config)
        set_dataloader_defaults(cfg)
        cfg.work_dir = str(folder)
        for key in ('train_dataloader', 'test_dataloader'):
            cfg[key].update(num_workers=0, persistent_workers=False, pin_memory=False)
        cfg.train_dataloader.batch_size = 2
        cfg.train_cfg.max_epochs = 1
        if 'decode_head' in cfg.model:
            cfg.model.decode_head.channels = 8
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        runner = build_runner(cfg)
        runner._init_model_weights()
        before = {name: one.detach().clone() for name, one in runner.model.named_parameters()}
        runner.train()
        changed = {
            name
            for name, one in runner.model.named_parameters()
            if not torch.equal(one.detach(), before[name])
        }
        seen[config.stem] = (type(runner.model.backbone).__name__, changed)
        return runner.test()

    return run_once


def parse(tool, *words):
    return tool.build_parser().parse_args([str(word) for word in words])


def test_an_rvsa_and_a_swin_on_three_sets(tool, data, tmp_path, monkeypatch, capsys):
    seen = {}
    monkeypatch.setattr(tool, 'run_once', in_process(seen))
    args = parse(
        tool, '--sets', 'm-eurosat', 'm-cashew-plant', '--backbones',
        BACKBONES / 'rvsa-tiny_scratch.py', BACKBONES / 'swinv2-tiny_scratch.py',
        '--protocols', 'linear', '--data-root', data, '--work-dir', tmp_path,
        '--cfg-options', 'model.backbone.drop_path_rate=0.0',
    )  # fmt: skip
    tool.main(args)
    assert {kind for kind, _ in seen.values()} == {'RVSAViT', 'SwinV2'} and len(seen) == 4
    for _, changed in seen.values():
        assert changed and not any(name.startswith('backbone.') for name in changed)
    table = (tmp_path / 'results.md').read_text().splitlines()
    assert table[0] == '| model | weights | partition | m-eurosat (top1) | m-cashew-plant (mIoU) |'
    assert [line.split(' | ')[0] for line in table[2:]] == [
        '| rvsa-tiny_scratch_linear', '| swinv2-tiny_scratch_linear',
    ]  # fmt: skip
    assert ' - ' not in ''.join(table[2:])
    # All that is finished is skipped; another config in its place is not taken for it.
    count = len(seen)
    tool.main(args)
    assert len(seen) == count and 'is done' in capsys.readouterr().out
    args.cfg_options = {'train_cfg.max_epochs': 3}
    with pytest.raises(ConfigError, match='of another config'):
        tool.main(args)


@pytest.mark.parametrize('kind', ['internimage-xl_in22k-pre', 'mixmim-base_sarw-pre'])
@pytest.mark.parametrize('name', ['m-bigearthnet', 'm-SA-crop-type'])
def test_large_backbones_are_put_together(tool, kind, name):
    """As configs: what they build is proved for the small ones above, and below without memory."""
    if kind.startswith('mixmim'):
        with pytest.raises(ConfigError, match=r"takes 2 bands.*adapt='by_name'"):
            tool.compose(name, BACKBONES / f'{kind}.py', 'finetune')
        return
    cfg = tool.compose(name, BACKBONES / f'{kind}.py', 'finetune')
    assert cfg.model.backbone.in_channels == 3
    assert cfg.train_dataloader.dataset.bands == ['B04', 'B03', 'B02']
    head = cfg.model.get('decode_head') or cfg.model.head
    parts = Config.fromfile(BACKBONES / f'{kind}.py')
    wanted = parts.channels if name == 'm-SA-crop-type' else parts.channels[-1]
    assert head.in_channels == wanted


@pytest.mark.slow
def test_mixmim_without_weights_takes_all_bands(tool):
    cfg = tool.compose('m-cashew-plant', BACKBONES / 'mixmim-tiny_scratch.py', 'finetune')
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 12, 64, 64), mode='tensor').shape[1] == 7


def test_a_composed_config_is_that_of_the_folder(tool):
    for name, file, protocol in (
        ('m-eurosat', EUROSAT, 'finetune'),
        ('m-eurosat', Path(str(EUROSAT).replace('accum16-', 'accum16-linear-')), 'linear'),
        ('m-cashew-plant', CASHEW, 'finetune'),
        ('m-cashew-plant', Path(str(CASHEW).replace('200e', 'frozen-200e')), 'linear'),
    ):
        mine = tool.compose(name, BACKBONES / f'{MODEL}.py', protocol).to_dict()
        theirs = load_config(file).to_dict()
        extra = {'_bands', 'backbone', 'channels', 'unet_maps', 'unet_channels', 'layer_decay'}
        theirs = {key: value for key, value in theirs.items() if key not in extra}
        for cfg in (mine, theirs):
            for head in ('head', 'decode_head'):
                cfg['model'].get(head, {}).pop('_delete_', None)
        assert mine['model'] == theirs['model']
        assert {**mine, 'model': 0} == {**theirs, 'model': 0}


def test_partitions_seeds_checkpoints_and_classes(tool, data):
    base = load_config(EUROSAT)
    before = base.to_dict()
    task = read_task(data / 'classification_v1.0' / 'm-eurosat')
    cfg = tool.make_config(base, task, '0.05x_train', 'mine.pth', 3, str(data))
    assert base.to_dict() == before
    for name in tool.LOADERS:
        assert cfg[name].dataset.partition == '0.05x_train'
        assert cfg[name].dataset.data_root == str(data / 'classification_v1.0' / 'm-eurosat')
    assert cfg.train_dataloader.batch_size == 8 and 'accumulative_counts' not in cfg.optim_wrapper
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2e-4 * 8 / 256)
    assert cfg.model.backbone.init_cfg.checkpoint == 'mine.pth'
    assert cfg.model.backbone.init_cfg.adapt == 'by_name' and cfg.randomness.seed == 3
    cfg = tool.make_config(base, task, '1.00x_train', 'random')
    assert cfg.model.backbone.init_cfg is None and cfg.train_dataloader.batch_size == 64
    base.model.head.num_classes = 4
    assert tool.make_config(base, task).model.head.num_classes == 10
    ben = load_config(str(EUROSAT).replace('eurosat', 'bigearthnet'))
    ben.model.head.num_classes = 4
    task = read_task(data / 'classification_v1.0' / 'm-bigearthnet')
    head = tool.make_config(ben, task).model.head
    assert (head.num_classes, head.loss.num_classes) == (43, 43)
    assert head.loss.loss_weight == pytest.approx(1 / 43)


def test_as_published(tool):
    swap = {'B08': 'B8A', 'B8A': 'B08'}
    for name, expected in (
        ('eurosat', swap),
        ('brick-kiln', swap),
        ('so2sat', {'B01': 'B02', 'B09': 'B8A', **swap}),
    ):
        cfg = load_config(str(EUROSAT).replace('eurosat', name))
        cfg = tool.make_config(cfg, None, as_published=True)
        for loader in tool.LOADERS:
            assert cfg[loader].dataset.names == 'as_published'
            assert cfg[loader].dataset.substitutes == expected
        assert cfg.model.backbone.padding == 'published'
        assert cfg.optim_wrapper.paramwise_cfg.faithful is True
    cfg = tool.make_config(load_config(CASHEW), None, as_published=True)
    assert cfg.test_dataloader.dataset.substitutes == swap
    assert 'padding' not in cfg.model.backbone  # the published UNet is padded


def test_a_run_that_fails_does_not_end_the_others(tool, data, tmp_path, monkeypatch, capsys):
    calls = []

    def run_once(folder, config, args):
        calls.append(config.stem)
        cfg = Config.fromfile(config)
        if 'seed1' in config.stem and 'm-eurosat' in config.stem and len(calls) < 5:
            raise LaunchError('cut off')
        return {cfg.metric: 50.0 + cfg.randomness.seed, 'time': 1.0}

    monkeypatch.setattr(tool, 'run_once', run_once)
    words = [EUROSAT, CASHEW, '--seeds', 0, 1, '--data-root', data, '--work-dir', tmp_path]
    with pytest.raises(LaunchError, match=r'1 runs failed.*cut off'):
        tool.main(parse(tool, *words))
    assert len(calls) == 4
    assert 'm-eurosat' in (tmp_path / 'results.md').read_text()
    tool.main(parse(tool, *words))
    assert len(calls) == 5
    table = (tmp_path / 'results.md').read_text().splitlines()
    # The two configs differ in more than the set: two rows.
    assert [line.split(' | ')[3:] for line in table[2:]] == [
        ['50.50 ± 0.71', '- |'], ['-', '50.50 ± 0.71 |'],
    ]  # fmt: skip
    assert len(json.loads((tmp_path / 'results.json').read_text())) == 4
    capsys.readouterr()
    monkeypatch.setattr(tool, 'run_once', lambda *_: {'other': 1.0})
    with pytest.raises(LaunchError, match=r'gave no accuracy/top1, only'):
        tool.main(parse(tool, EUROSAT, '--data-root', data, '--work-dir', tmp_path / 'b'))


def test_what_it_refuses(tool, data, tmp_path):
    for words in ((), ('--sets', 'm-eurosat'), ('--backbones', BACKBONES / 'rvsa-tiny_scratch.py')):
        with pytest.raises(ConfigError, match='give CONFIGs of sets, or'):
            tool.main(parse(tool, *words))
    other = REPO / 'configs' / 'mp_mae' / 'mp-mae_convnextv2-mini_1xb8-coslr-2e_mmearth-56px.py'
    with pytest.raises(ConfigError, match='is no config of a set of GEO-Bench'):
        tool.main(parse(tool, other, '--work-dir', tmp_path))
    with pytest.raises(ConfigError, match='has no backbone and channels'):
        tool.compose('m-eurosat', other, 'finetune')


def test_a_dry_run_writes_configs_without_data(tool, tmp_path, capsys):
    tool.main(
        parse(tool, '--sets', 'all', '--backbones', BACKBONES / f'{MODEL}.py', '--dry-run',
              '--data-root', tmp_path / 'none', '--work-dir', tmp_path, '--as-published')
    )  # fmt: skip
    written = [Path(line) for line in capsys.readouterr().out.split() if line.endswith('.py')]
    assert len(written) == 12 and all(path.is_file() for path in written)
    cfg = Config.fromfile(written[0])
    assert cfg.train_dataloader.dataset.data_root.startswith(str(tmp_path / 'none'))


@pytest.mark.slow
def test_the_command_trains_tests_and_prints_the_table(data, tmp_path):
    import subprocess
    import sys

    words = [
        sys.executable, TOOL, EUROSAT, '--checkpoints', 'random', '--data-root', data,
        '--work-dir', tmp_path, '--cfg-options', *SMALL,
    ]  # fmt: skip
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-3].startswith('| model | weights | partition | m-eurosat')
