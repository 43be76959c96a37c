# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every converter as a command on a small source of its true format, and ways to damage that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import rasterio
from PIL import Image

from tests.formats import MAKERS, SOURCES
from tests.test_datasets.bad_input import Case
from tests.test_datasets.imagery import numbers, write_tif

# A converter and its options; {source} and {target} are folders.
Command = tuple[str, Case]
_SMALL = dict(count=2, size=48)
S2 = ('B02', 'B03', 'B04', 'B08', 'B11')
ALL_S2 = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12')


def _scene(names: tuple[str, ...] = S2, size: int = 192) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        values = numbers(len(names), size, 128) % 4000 + 500
        write_tif(root / 'scene.tif', values.astype('uint16'), names=names)
        write_tif(root / 'labels.tif', np.zeros((1, size, 128), 'uint8'))

    return make


def _bands(root: Path) -> None:
    for name in S2:
        write_tif(root / f'T32_2019_{name}.tif', numbers(1, 32, 32))


def _tiles(root: Path) -> None:
    for number in range(3):
        write_tif(root / 'tiles' / f'{number}.tif', numbers(2, 16, 16, 'float32'), names='ab')
    (root / 'dataset.py').write_text(
        'train_dataloader = dict(dataset=dict(\n'
        "    type='mmrsfm.TileDataset', data_root='none',\n"
        "    pipeline=[dict(type='mmrsfm.LoadMultiBandImage')]))\n"
    )


def _submission(root: Path) -> None:
    for stem in 'ab':
        path = root / 'images' / f'{stem}.tif'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(path)
    (root / 'txt').mkdir()
    lines = ('a 0.9 1 1 9 1 9 9 1 9', 'b 0.8 1 1 9 1 9 9 1 9')
    (root / 'txt' / 'Task1_Boeing737.txt').write_text('\n'.join(lines) + '\n')


def _polygons(root: Path) -> None:
    for stem in 'ab':
        path = root / 'images' / f'{stem}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((48, 48, 3), 90, np.uint8)).save(path)
        table = root / 'labels' / f'{stem}.csv'
        table.parent.mkdir(exist_ok=True)
        rows = ['xmin,ymin,xmax,ymax,label', '5,5,20,20,house', '25,25,40,40,house']
        table.write_text('\n'.join(rows) + '\n')


def _labels(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for stem in 'ab':
        Image.fromarray(np.ones((16, 16), np.uint8)).save(root / f'{stem}.png')


def _case(options: list[str], tree: Any, images: str, **fields: Any) -> Case:
    return Case(dict(options=options), tree, images, **fields)


CONVERTERS: dict[str, Case] = {
    'polygons_to_samrs': _case(
        ['{source}/images', '{source}/labels', '{target}', '--name', 'town', '--classes', 'house',
         '--size', '24'],
        _polygons, 'images/*', labels='labels/*', leaves={'missing_image': 'no list'},
    ),
    'samrs_pkl_to_coco': _case(
        ['{source}', '{target}', '--dataset', 'sota', '--splits', 'train'],
        (SOURCES['samrs'], _SMALL), 'trainval/images/*',
        labels='trainval/rhbox_segs_init/ins/*', index='train.txt',
        leaves={'truncated': 'of images the header alone is read', 'bands': 'likewise',
                'nan': '8 bits'},
    ),
    'xview_geojson_to_coco': _case(
        ['{source}', '{target}', '--train-count', '1', '--size', '32'],
        (SOURCES['xview'], dict(count=3, size=48)), 'train_images/*', index='xView_train.geojson',
        leaves={'missing_image': 'one is missing in the published set, too'},
    ),
    'dior_to_coco': _case(
        ['{source}', '{target}'], (SOURCES['dior'], _SMALL), 'JPEGImages-trainval/*',
        labels='Annotations/Horizontal*/*', index='ImageSets/Main/trainval.txt',
        leaves=dict.fromkeys(
            ('truncated', 'empty', 'bands', 'nan', 'missing_image', 'no_images'), 'not read'
        ),
    ),
    'dior_r_to_dota': _case(
        ['{source}', '{target}'], (SOURCES['dior'], _SMALL), 'Annotations/Oriented*/*',
        labels='Annotations/Oriented*/*',
        leaves=dict.fromkeys(('bands', 'nan', 'missing_partner', 'missing_image'), 'no images'),
    ),
    'fair1m_to_dota': _case(
        ['{source}/train/labelXml', '{target}', '--images', '{source}/train/images'],
        (SOURCES['fair1m'], _SMALL), 'train/images/*', labels='train/labelXml/*',
    ),
    'spacenet_to_masks': _case(
        ['{source}', '{target}', '--val-fraction', '0.5'], (SOURCES['spacenet_v1'], _SMALL),
        '3band/*', labels='geojson/*', leaves={'label_empty': 'no buildings, as published'},
    ),
    'scene_split_lists': _case(
        ['{source}', '{target}', '--layout', 'lists', '--fractions', 'train=0.5'],
        (SOURCES['eurosat'], dict(count=2)), '*/*.jpg',
        leaves=dict.fromkeys(
            ('truncated', 'bands', 'nan', 'empty', 'missing_image', 'no_images'), 'copied'
        ),
    ),
    'cd_patches': _case(
        ['folders', '{source}', '{target}', '--size', '32'], (SOURCES['levir_cd'], _SMALL),
        'train/A/*', labels='train/label/*', partner='train/B/*',
    ),
    'cd_patches-pair': _case(
        ['pair', '{source}/before/before.tif', '{source}/after/after.tif',
         '{source}/change label/change_label.tif', '{target}', '--size', '64',
         '--fractions', 'train=0.5', 'test=0.5'],
        (SOURCES['whu_cd'], {}), 'before/*', labels='change label/*', partner='after/*',
    ),
    'cut_pairs': _case(
        ['{source}/optical', '{source}/sar', '{target}', '--size', '32'],
        (SOURCES['scene_pairs'], dict(count=2, size=64)), 'optical/*', partner='sar/*',
    ),
    'cut_tiles': _case(
        ['{source}/scene.tif', '{target}', '--size', '32', '--gap', '8', '--labels',
         '{source}/labels.tif'],
        _scene(), 'scene.tif', labels='labels.tif',
        leaves={'bands': 'any number of bands'},
    ),
    'oscd_to_rgb': _case(
        ['{source}/Onera Satellite Change Detection dataset - Images', '{target}',
         '--train-labels', '{source}/Onera Satellite Change Detection dataset - Train Labels',
         '--test-labels', '{source}/Onera Satellite Change Detection dataset - Test Labels'],
        (SOURCES['oscd'], _SMALL), '*Images/aguasclaras/imgs_1_rect/B02.tif',
        labels='*Labels/aguasclaras/cm/*.tif',
        index='*Images/train.txt', partner='*Images/aguasclaras/imgs_2_rect/B02.tif',
    ),
    'loveda_merge': _case(
        ['{source}', '{target}'], (SOURCES['loveda'], _SMALL), 'Train/Rural/images_png/*',
        labels='Train/Rural/masks_png/*',
        leaves=dict.fromkeys(
            ('truncated', 'bands', 'nan', 'empty', 'label', 'label_empty', 'label_noise'), 'copied'
        ),
    ),
    'loveda_server_labels': _case(
        ['{source}', '{target}'], _labels, '*.png',
        leaves={'missing_image': 'no list', 'nan': '8 bits'},
    ),
    'pack_mmearth': _case(
        ['{source}/data_1M_v001_64', '{target}/all.tiles'], (MAKERS['mmearth'], {}),
        'data_1M_v001_64/*.h5', index='data_1M_v001_64/*_splits.json',
        partner='data_1M_v001_64/*_band_stats.json',
        leaves={'bands': 'see test_mmearth.py', 'nan': 'kept'},
    ),
    'pack_tiles': _case(
        ['{source}/dataset.py', '{target}/all.tiles', '--cfg-options',
         'train_dataloader.dataset.data_root={source}/tiles'],
        _tiles, 'tiles/*', index='dataset.py',
        leaves={'missing_image': 'no list'},
    ),
    'scene_to_mmearth': _case(
        ['{source}/scene.tif', '{target}', '--size', '32', '--gap', '0'], _scene(ALL_S2),
        'scene.tif', leaves={'nan': 'no tile has enough data'},
    ),
    'sen12_flood': _case(
        ['{source}', '{target}', '--size', '0'], (SOURCES['sen12_flood'], _SMALL), '0001/*VH.tif',
        index='S1list.json', partner='0001/*VV.tif',
        leaves=dict.fromkeys(
            ('missing_image', 'missing_partner', 'no_images'), 'left out, see skipped.csv'
        ),
    ),
    'stack_bands': _case(
        ['{source}/*_B*.tif', '{target}/out.tif'], _bands, '*.tif',
        leaves={'missing_image': 'no list of bands'},
    ),
    'split_dota': _case(
        ['{target}', '--images', '{source}/train/images', '--labels', '{source}/train/labelTxt',
         '--size', '32', '--gap', '8'],
        (SOURCES['dota'], _SMALL), 'train/images/*', labels='train/labelTxt/*',
        leaves={'label_empty': 'no objects, as published', 'nan': '8 bits'},
    ),
    'spectral_index_labels': _case(
        ['{source}/scene.tif', '{target}/labels.tif'], _scene(), 'scene.tif'
    ),
    'dota_txt_to_fair1m_xml': _case(
        ['{source}/txt', '{source}/images', '{target}'], _submission, 'images/*', labels='txt/*',
        partner='images/b.tif',
        leaves=dict.fromkeys(('truncated', 'bands', 'nan', 'label_empty'), 'not read'),
    ),
}  # fmt: skip


def make_source(case: Case, root: Path) -> Path:
    """Writes the undamaged source."""
    if callable(case.tree):
        case.tree(root)
    else:
        maker, options = case.tree
        maker(root, **options)
    return root


def run(name: str, case: Case, source: Path, target: Path) -> None:
    """Runs the command, in this process."""
    script = name.split('-')[0]
    options = [part.format(source=source, target=target) for part in case.config['options']]
    target.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f'data_converters.{script}')
    with mock.patch.object(sys, 'argv', [script, *options]):
        module.main()


def is_whole(path: Path) -> bool:
    """Whether an output can be read to its end."""
    if path.suffix == '.tif':
        with rasterio.open(path) as source:
            source.read()
    elif path.suffix in ('.png', '.jpg'):
        Image.open(path).load()
    return not path.name.startswith('.') and not path.name.endswith('.partial')
