# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The scope ``opencd``: cheap, quiet, second to a real Open-CD. Each in a process of its own."""

import os
import subprocess
import sys
import textwrap

# What a real Open-CD does: it asserts versions, makes registries, and registers its classes.
PACKAGE = {
    '__init__.py': '{check}',
    'registry.py': """
        from mmengine.registry import Registry, MODELS as R, TRANSFORMS as T, DATASETS as D

        MODELS = Registry('model', parent=R, scope='opencd', locations=['opencd.models'])
        TRANSFORMS = Registry('transform', parent=T, scope='opencd')
        DATASETS = Registry('dataset', parent=D, scope='opencd', locations=['opencd.datasets'])
        """,
    'models.py': """
        from opencd.registry import MODELS

        @MODELS.register_module()
        class SiamEncoderDecoder:
            pass
        """,
    'datasets.py': """
        from mmseg.registry import DATASETS as MMSEG_DATASETS
        from opencd.registry import DATASETS

        @MMSEG_DATASETS.register_module()
        class _BaseCDDataset:
            pass

        @DATASETS.register_module()
        class LEVIR_CD_Dataset:
            pass
        """,
}

WHOSE = """
import mmrsfm
from mmengine.registry import DATASETS, HOOKS, MODELS, TRANSFORMS

for registry, name in (
    (MODELS, 'SiamEncoderDecoder'), (MODELS, 'UNetHead'), (DATASETS, 'LEVIR_CD_Dataset'),
    (DATASETS, 'OSCD_RGB_CD_Dataset'), (HOOKS, 'CDVisualizationHook'),
    (TRANSFORMS, 'MultiImgExchangeTime'),
):
    for scope in ('opencd.', None):
        if scope is None:
            with registry.switch_scope_and_registry('opencd') as child:
                found = child.get(name)
        else:
            found = registry.get(scope + name)
        print(name, found.__module__)
"""


def run(code, folder):
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)],
        cwd=folder,
        env=environment | {'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def write_package(folder, check):
    (folder / 'opencd').mkdir()
    for name, text in PACKAGE.items():
        (folder / 'opencd' / name).write_text(textwrap.dedent(text).replace('{check}', check))


def whose(output):
    return dict(line.split() for line in output.splitlines() if line.count(' ') == 1)


def test_import_is_cheap_and_only_the_one_warning_is_silent(tmp_path):
    libraries = "('mmcv', 'mmdet', 'mmpretrain', 'mmrotate', 'mmseg', 'torchvision')"
    out = run(
        f"""
        import sys
        import mmrsfm
        from mmengine.logging import print_log
        from mmengine.registry import MODELS, init_default_scope
        print('AT IMPORT', [name for name in {libraries} if name in sys.modules])
        print('OURS', [name for name in sys.modules if name.startswith('mmrsfm.compat.opencd.')])
        print(MODELS.get('opencd.FeatureFusionNeck').__name__, 'mmseg' in sys.modules)
        init_default_scope('opencd')
        try:
            MODELS.build(dict(type='BIT'))
        except KeyError as error:
            print('SAID', error)
        print_log('Failed to import `other.registry` make sure', logger='current', level=30)
        print('INVENTED', 'opencd' in sys.modules)
        """,
        tmp_path,
    )
    assert 'AT IMPORT []' in out
    assert "OURS ['mmrsfm.compat.opencd.registry']" in out
    assert 'FeatureFusionNeck True' in out
    assert 'INVENTED False' in out  # no module of that name is made up
    assert 'SAID' in out and 'BIT is not in the opencd::model registry' in out
    assert '`opencd.registry`' not in out
    assert 'other.registry' in out


def test_a_real_opencd_wins_and_gets_what_it_lacks(tmp_path):
    write_package(tmp_path, check='')
    assert whose(run(WHOSE, tmp_path)) == {
        'SiamEncoderDecoder': 'opencd.models',
        'UNetHead': 'mmrsfm.models.change_detection.unet_head',
        'LEVIR_CD_Dataset': 'opencd.datasets',
        'OSCD_RGB_CD_Dataset': 'mmrsfm.compat.opencd.datasets.benchmarks',
        'CDVisualizationHook': 'mmrsfm.compat.opencd.visualization.cd_visualization_hook',
        'MultiImgExchangeTime': 'mmrsfm.compat.opencd.transforms.exchange_time',
    }


def test_an_opencd_that_cannot_be_imported_is_replaced_with_a_warning(tmp_path):
    write_package(tmp_path, check="assert False, 'MMCV==2.3.6 is used but incompatible'")
    out = run(WHOSE, tmp_path)
    assert 'cannot be imported (AssertionError: MMCV==2.3.6' in out
    assert len(whose(out)) == 6
    assert all(module.startswith('mmrsfm.') for module in whose(out).values())
