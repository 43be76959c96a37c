# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the guides say to write and to type is written and typed here, in a folder of its own."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from mmrsfm.utils.dependencies import MM_PACKAGES
from tests.processes import run_forked

REPO = Path(__file__).resolve().parents[2]
# The trainings of the guides, in seconds.
SHORT = (
    'train_cfg.max_epochs=1 train_cfg.val_interval=1 train_dataloader.batch_size=2 '
    'model.test_cfg.mode=whole'
)
LAUNCHED = ('train.py', 'test.py', 'slurm_run.sh')  # what shell scripts hand their arguments to
LOADERS = ' '.join(
    f'{phase}_dataloader.num_workers=0 {phase}_dataloader.persistent_workers=False'
    for phase in ('train', 'val', 'test')
)


def blocks(page, language):
    """The blocks of code of a guide."""
    text = (REPO / 'docs' / page).read_text()
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.MULTILINE | re.DOTALL)


def write_files(page, folder):
    """Writes the blocks of Python that begin with the name of a file."""
    for block in blocks(page, 'python'):
        name = re.match(r'# (\w+\.py)\n', block)
        if name:
            (folder / name.group(1)).write_text(block)


def run(command, folder):
    return run_forked([REPO / command.split()[0], *shlex.split(command)[1:]], folder)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A scene of four bands with labels, cut as the guide says, and the files of both guides."""
    # What the commands import is imported once, before they are forked.
    for module in ('mmengine.runner', 'mmseg.apis', 'mmrsfm.datasets.segmentation'):
        importlib.import_module(module)
    folder = tmp_path_factory.mktemp('mine')
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:224, :64]
    labels = ((rows // 16 + columns // 16) % 3).astype(np.uint8)
    values = np.array([[600, 400, 900], [900, 700, 1000], [900, 500, 1300], [2500, 400, 3000]])
    scene = (values[:, labels] + rng.integers(0, 300, (4, *labels.shape))).astype(np.uint16)
    labels[0] = 255
    for name, array in (('scene.tif', scene), ('labels.tif', labels[None])):
        profile = dict(count=len(array), dtype=array.dtype, crs='EPSG:32633')
        profile |= dict(height=224, width=64, transform=from_origin(5e5, 5e6, 10, 10))
        with rasterio.open(folder / name, 'w', driver='GTiff', **profile) as target:
            target.write(array)
    for page in ('own_data.md', 'own_backbone.md'):
        write_files(page, folder)
    cut = next(block for block in blocks('own_data.md', 'bash') if 'cut_tiles' in block)
    command = cut.strip().removeprefix('python ').replace('--size 128', '--size 32')
    run(f'{command} --gap 16', folder)
    return folder


# Five commands, on machines that may be busy.
@pytest.mark.timeout(900)
def test_own_data_from_files_to_a_tested_model(folder, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # asks compilers
    found = [block for block in blocks('own_data.md', 'bash') if 'my_fields.py' in block]
    look, train, scene = found
    statistics, browse = (line.partition('#')[0] for line in look.splitlines())
    options = f'--cfg-options {SHORT} {LOADERS}'
    text = run(statistics.removeprefix('python '), folder)
    assert re.search(r'^mean=\[.*\], std=\[.*\]$', text, re.MULTILINE)
    run(browse.removeprefix('python ').replace('--show-number 8', '--show-number 1'), folder)
    assert len(list((folder / 'work_dirs' / 'look').glob('*.png'))) == 1
    first, second = train.splitlines()
    run(f'{first.removeprefix("python ")} {options}', folder)
    second = second.removeprefix('python ').replace('epoch_50', 'epoch_1')
    text = run(f'{second} --interval 100 {options}', folder)
    assert 'mIoU' in text
    assert all(name in text for name in ('water', 'field', 'forest'))
    scene = scene.strip().removeprefix('python ').replace('epoch_50', 'epoch_1')
    run(f'{scene} {options}', folder)
    with (
        rasterio.open(folder / 'scene.tif') as source,
        rasterio.open(folder / 'maps/scene.tif') as m,
    ):
        assert (m.crs, m.transform, m.shape) == (source.crs, source.transform, source.shape)
        assert set(np.unique(m.read())) <= {0, 1, 2}
    assert (folder / 'maps' / 'scene.html').is_file()
    (block,) = blocks('scenes.md', 'python')
    for old, new in (
        ("'config.py', 'checkpoint.pth'", "'my_fields.py', 'work_dirs/my_fields/epoch_1.pth'"),
        ("device='cuda', amp=True", "device='cpu'"),
        ("'maps'", "'again'"),
    ):
        assert old in block
        block = block.replace(old, new)
    monkeypatch.chdir(folder)
    exec(block, {})
    assert (folder / 'again' / 'scene_probabilities.tif').is_file()


@pytest.mark.parametrize('name', ['my_fields_net.py', 'my_fields_timm.py'])
def test_own_backbone_in_the_same_config(name, folder, monkeypatch):
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    monkeypatch.syspath_prepend(folder)
    config = Config.fromfile(folder / name)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config.model).eval()
    maps = model.backbone(torch.zeros(1, 4, 64, 96))
    assert [m.shape[1] for m in maps] == config.model.decode_head.in_channels
    assert [m.shape[-2:] for m in maps] == [(64 // s, 96 // s) for s in (4, 8, 16, 32)]
    if name == 'my_fields_net.py':
        # The class of the guide's test; that has more of them, each a test of every backbone here.
        scope = {}
        exec((folder / 'test_my_net.py').read_text(), scope)
        contract = scope['TestMyNet']()
        contract.test_any_size_and_aspect(3)
        contract.test_any_number_of_bands(13)
        contract.test_eval_is_reproducible_and_free_of_the_batch()
        contract.test_every_trainable_parameter_gets_a_gradient()


def test_pretrained_weights_in_the_same_config(folder):
    from mmengine.config import Config

    model = Config.fromfile(folder / 'my_fields_mars.py').model
    assert (model.backbone.arch, model.backbone.in_channels) == ('base', 4)
    base = Config.fromfile(REPO / 'configs/_base_/backbones/swinv2-base_mars-rgb-pre.py')
    assert model.decode_head.in_channels == base.channels
    assert model.backbone.init_cfg.checkpoint == base.backbone.init_cfg.checkpoint


def test_the_configs_of_the_readme(folder, monkeypatch):
    from mmengine.config import Config
    from mmengine.registry import DATASETS, MODELS, DefaultScope

    monkeypatch.chdir(folder)
    own, detector = blocks('../README.md', 'python')
    Path('own.py').write_text(own)
    Path('detector.py').write_text(detector)
    config = Config.fromfile('own.py')
    dataset = config.train_dataloader.dataset
    dataset.update(data_root='data/mine', data_prefix=dict(img_path='images/train'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        sample = DATASETS.build(dataset)[0]
        preprocessor = MODELS.build(config.data_preprocessor)
    assert sample['inputs'].shape == (4, 128, 128)
    batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    inputs = preprocessor(batch)['inputs']
    assert inputs.shape == (1, config.model.backbone.in_channels, 128, 128)
    model = Config.fromfile('detector.py').model
    assert model.type == 'FasterRCNN'
    model.backbone.update(init_cfg=None, arch='tiny')
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert type(MODELS.build(model.backbone)).__name__ == 'RVSAViT'


def test_versions_of_the_installation_guide():
    text = (REPO / 'docs' / 'install.md').read_text()
    for package in MM_PACKAGES:
        low, high = re.fullmatch(r'>=(.*),<(.*)', package.fork_range).groups()
        assert f'`{package.fork}` {low} up to {high}' in text, package.module
        row = next(line for line in text.splitlines() if f'`{package.fork}`' in line)
        assert re.search(rf'\b{re.escape(package.upstream_range[2:].partition(",")[0])}\b', row)


def test_commands_of_the_guides_exist():
    """Scripts and configs that a shell block names, in all guides."""
    missing = []
    for path in sorted((REPO / 'docs').glob('*.md')):
        for language in ('bash', 'shell', ''):
            for block in blocks(path.name, language):
                for name in re.findall(r'\b(?:tools|data_converters|configs)/[\w./-]+\.\w+', block):
                    if not (REPO / name).is_file() and 'CONFIG' not in name:
                        missing.append(f'{path.name}: {name}')
    assert not missing


def test_options_of_the_guides_are_those_of_the_commands():
    """Each ``--option`` beside a script is in its text, or in what adds or takes its arguments."""
    libraries = ('engine/command_line.py', 'apis/format_comparison.py')
    shared = ''.join((REPO / 'mmrsfm' / name).read_text() for name in libraries)
    shared_by_shell = ''.join((REPO / 'tools' / name).read_text() for name in LAUNCHED)
    found, missing = 0, []
    pages = [REPO / 'README.md', *(REPO / 'docs').glob('*.md')]
    for path in [*pages, *(REPO / 'configs').rglob('README.md')]:
        text = path.read_text()
        for block in re.findall(r'^```(?:bash|shell)\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
            for line in block.replace('\\\n', ' ').splitlines():
                line = line.partition(' #')[0]
                script = re.search(r'\b((?:tools|data_converters)/[\w./-]+\.(?:py|sh))(.*)', line)
                if not script:
                    continue
                known = (REPO / script.group(1)).read_text() + shared
                known += shared_by_shell if script.group(1).endswith('.sh') else ''
                for option in re.findall(r'(?<![\w-])--[a-z][\w-]*', script.group(2)):
                    found += 1
                    if not re.search(rf'{option}(?![\w-])', known):
                        missing.append(f'{path.name}: {script.group(1)} {option}')
    assert found > 50
    assert not missing


def test_settings_that_the_devices_guide_names_are_those_of_the_scripts():
    text = (REPO / 'docs' / 'devices.md').read_text()
    scripts = ''.join(path.read_text() for path in (REPO / 'tools').glob('*.sh'))
    named = set(re.findall(r'`([A-Z][A-Z_]{3,})`', text)) - {'NCCL_SOCKET_IFNAME', 'MASTER_PORT'}
    named -= {'GLOO_SOCKET_IFNAME'}
    assert 'SECONDS_TO_SAVE' in named
    assert [name for name in sorted(named) if name not in scripts] == []
    for name, value in re.findall(r'`([A-Z_]+)` \[(\d+)\]', text):
        assert re.search(rf'\b{name}\b:-{value}|{name} \[{value}\]|{name}:-{value}', scripts), name
