# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""``mmrsfm::`` configs and the shipped tools: in an editable installation and in a built wheel."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
# One process: the wheel is built once. Hundreds of configs are read, on machines that may be busy.
pytestmark = pytest.mark.timeout(900)

SHIPPED = ('configs', 'tools', 'data_converters')

# Run in the environment under test, in a foreign folder: prints what it found as JSON.
PROBE = """
import json, sys
from pathlib import Path
import mmrsfm
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import get_installed_path

mim = Path(mmrsfm.__file__).parent / '.mim'
names = sorted(str(p.relative_to(mim / 'configs')) for p in (mim / 'configs').rglob('*.py'))
bad = {}
for number, name in enumerate(names[:: int(sys.argv[1])]):
    try:
        if number % 5 == 0:
            get_config('mmrsfm::' + name)
        Path('child.py').write_text(f"_base_ = 'mmrsfm::{name}'\\nadded = 1\\n")
        assert Config.fromfile('child.py').added == 1
    except Exception as error:
        bad[name] = repr(error)
print(json.dumps(dict(
    file=mmrsfm.__file__, version=mmrsfm.__version__, names=names, bad=bad,
    installed=get_installed_path('mmrsfm'),
    task_libraries=sorted({'mmdet', 'mmseg', 'mmrotate'} & set(sys.modules)),
)))
"""


def probe(python, folder, every=1):
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    result = subprocess.run(
        [str(python), '-W', 'ignore', '-c', PROBE, str(every)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def config_names(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*.py'))


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves a build folder in the tree that it builds.

    The copy lies beside it. Tests compare with that: somebody may be working on the tree.
    """
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for name in ('mmrsfm', 'requirements', *SHIPPED):
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, source / name, symlinks=True, ignore=ignore)
    for path in REPO.iterdir():
        if path.is_file() and not path.name.startswith('.'):
            shutil.copy2(path, source)
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--disable-pip-version-check']
    command += ['--no-deps', '--no-build-isolation', '--no-index', '-w', str(folder), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob('mmrsfm-*.whl')
    return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """Python of a second environment that has the wheel, and sees the packages of this one."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / 'bin' / 'python'
    command = [sys.executable, '-m', 'pip', '--python', str(python), 'install', '--quiet']
    command += ['--disable-pip-version-check', '--no-deps', '--no-index', str(wheel)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (site,) = (folder / 'lib').glob('python*/site-packages')
    # A plain path line does not process the .pth files of that folder, so that the finder of an
    # editable mmrsfm in it stays inactive.
    (site / 'first_environment.pth').write_text(sysconfig.get_paths()['purelib'] + '\n')
    return python


def test_the_wheel_holds_copies_and_no_rubbish(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = wheel.parent / 'source'
    for path in (source / 'configs').rglob('*.py'):
        assert f'mmrsfm/.mim/{path.relative_to(source)}' in names
    assert 'mmrsfm/.mim/model-index.yml' in names
    assert 'mmrsfm/.mim/tools/env.sh' in names
    assert 'mmrsfm/py.typed' in names and 'mmrsfm/visualization/scene_page.html' in names
    assert any(name.endswith('licenses/NOTICE') for name in names)
    assert not [name for name in names if '__pycache__' in name or name.startswith('tests')]
    modules = {str(path.relative_to(source)) for path in (source / 'mmrsfm').rglob('*.py')}
    modules = {name for name in modules if '/.mim/' not in name}
    assert modules <= names


# Reading a config takes a tenth of a second: by default every fifth one is resolved.
@pytest.mark.parametrize('every', [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_wheel_resolves_configs_from_a_foreign_folder(every, wheel, installed, tmp_path):
    source = wheel.parent / 'source'
    found = probe(installed, tmp_path, every=every)
    package = Path(found['file']).parent
    assert installed.parents[1] in package.parents, 'the wheel is not what was imported'
    assert Path(found['installed']) == package
    assert found['names'] == config_names(source / 'configs')
    assert found['bad'] == {}
    assert found['task_libraries'] == []
    for name in SHIPPED:
        if (source / name).is_dir():
            assert config_names(package / '.mim' / name) == config_names(source / name)
    assert not (package / '.mim' / 'configs').is_symlink()


def test_an_editable_installation_resolves_configs_from_a_foreign_folder(tmp_path):
    found = probe(sys.executable, tmp_path, every=7)
    if REPO not in Path(found['file']).parents:
        pytest.skip(f'this environment has mmrsfm from {found["file"]}')
    assert found['names'] == config_names(REPO / 'configs')
    assert found['bad'] == {}


def test_the_source_tree_has_links_where_mim_looks():
    mim = REPO / 'mmrsfm' / '.mim'
    for name in (*SHIPPED, 'model-index.yml'):
        link = mim / name
        assert link.is_symlink()
        assert not Path(os.readlink(link)).is_absolute()
        assert link.resolve() == REPO / name


def test_every_config_in_the_model_index_exists():
    index = yaml.safe_load((REPO / 'model-index.yml').read_text())
    for name in index['Import']:
        meta = yaml.safe_load((REPO / name).read_text())
        models = {model['Name']: model for model in meta['Models']}
        assert len(models) == len(meta['Models'])
        collections = {collection['Name'] for collection in meta['Collections']}
        for key, model in models.items():
            assert (REPO / model['Config']).is_file(), model['Config']
            assert Path(model['Config']).stem == key
            assert model['In Collection'] in collections
            for downstream in model.get('Downstream') or ():
                assert downstream in models, f'{key}: {downstream} is in no metafile'
        folder = (REPO / name).parent
        configs = {path.stem for path in folder.rglob('*.py')}
        # A pretrained backbone of others is a row too: its base config names the weights.
        inside = {
            key for key, model in models.items() if folder in (REPO / model['Config']).parents
        }
        assert configs == inside, 'a config without a row in the metafile, or the reverse'


def test_the_citation_names_this_version():
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    namespace = {}
    exec((REPO / 'mmrsfm' / 'version.py').read_text(), namespace)
    assert citation['version'] == namespace['__version__']
    assert citation['license'] == 'Apache-2.0'
