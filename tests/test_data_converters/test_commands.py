# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Each converter as a command: help, one sentence for an error, nothing left behind."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests import formats

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


COMMANDS = {
    'polygons_to_samrs': ['none', 'none', 'out', '--name', 'town', '--classes', 'house'],
    'samrs_pkl_to_coco': ['none', 'out', '--dataset', 'sota'],
    'xview_geojson_to_coco': ['none', 'out'],
    'dior_to_coco': ['none'],
    'dior_r_to_dota': ['none', 'out'],
    'fair1m_to_dota': ['none', 'out'],
    'spacenet_to_masks': ['none', 'out'],
    'scene_split_lists': ['none', 'out', '--layout', 'lists', '--fractions', 'train=0.2'],
    'cd_patches': ['folders', 'none', 'out'],
    'cut_pairs': ['none', 'none', 'out'],
    'oscd_to_rgb': ['none', 'out', '--train-labels', 'none'],
    'loveda_merge': ['none', 'out'],
    'loveda_server_labels': ['none', 'out'],
    'pack_mmearth': ['none', 'out.tiles'],
    'pack_tiles': ['none.py', 'out.tiles'],
    'scene_to_mmearth': ['none', 'out'],
    'sen12_flood': ['none', 'out'],
    'stack_bands': ['none', 'out.tif'],
    'split_dota': ['out', '--images', 'none', '--labels', 'none'],
}


@pytest.mark.parametrize('name', COMMANDS)
def test_commands(name, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = str(REPO / 'data_converters' / f'{name}.py')
    monkeypatch.setattr(sys, 'argv', [script, '--help'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(script, run_name='__main__')
    assert stop.value.code == 0 and 'usage' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [script, *COMMANDS[name]])
    with pytest.raises(SystemExit, match=r'^error: ') as stop:
        runpy.run_path(script, run_name='__main__')
    assert '\n' not in str(stop.value)
    assert not list(tmp_path.iterdir()), 'a run that failed left something'


def test_commands_need_nothing_beside_them():
    """``python data_converters/x.py`` finds mmrsfm, which is installed, and no other converter."""
    for script in sorted((REPO / 'data_converters').glob('*.py')):
        imports = re.findall(r'^\s*(?:from|import) data_converters', script.read_text(), re.M)
        assert not imports, script.name


def test_a_command_of_its_own(tmp_path):
    source = formats.SOURCES['whu_cd'](tmp_path / 'source')
    names = ('before/before.tif', 'after/after.tif', 'change label/change_label.tif')
    run = subprocess.run(
        [
            sys.executable, str(REPO / 'data_converters/cd_patches.py'), 'pair',
            *(str(source / name) for name in names), str(tmp_path / 'out'), '--size', '64',
            '--fractions', 'train=0.5', 'test=0.5',
        ],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f'{tmp_path / "out"}: train 4, test 4'


def test_the_page_names_every_command_of_a_benchmark():
    text = (REPO / 'docs/datasets.md').read_text()
    named = set(re.findall(r'(?<!tools/)(?<![-\w])(\w+)\.py\b', text))
    assert named == set(COMMANDS) - {'loveda_server_labels'}
    assert all((REPO / 'data_converters' / f'{name}.py').is_file() for name in COMMANDS)
