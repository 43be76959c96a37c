# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every dataset of the configs, on a small tree of its true format, and ways to damage that tree.

A case is a dataset as a base config has it, with the loading steps of its pipeline; the trees are
made once, and a case that damages one file gets a copy in which all other files are links.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmrsfm.datasets import AddressedDataset
from mmrsfm.engine.run_config import register_scope
from mmrsfm.registry import DATASETS
from tests.formats import MAKERS
from tests.test_datasets.imagery import numbers, write_tif

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets'
_KEPT = ('Load', 'MultiImgLoad', 'ConvertBoxType', 'NormalizeMMEarth')


@dataclass
class Case:
    """A dataset and its files.

    Attributes:
        config: Name of the base config, or a dataset config itself.
        tree: Key of MAKERS and arguments, or a function that writes below a folder.
        images: Pattern of the images below the tree; the first that is read is damaged.
        labels: Pattern of the labels or annotations of single images.
        index: The list or table of all samples.
        partner: Pattern of what is removed so that a pair is incomplete (default: labels).
        scope: Default scope.
        root: Folder below the tree that is ``data_root``.
        changes: Of the dataset config.
        phase: Whose dataset.
        pair: Whether images and partners are modalities, of which one may be without data.
        leaves: Failures that are none for this dataset, with the reason.
    """

    config: str | dict[str, Any]
    tree: tuple[str, dict[str, Any]] | Callable[[Path], Any]
    images: str
    labels: str | None = None
    index: str | None = None
    partner: str | None = None
    scope: str = 'mmpretrain'
    root: str = ''
    changes: dict[str, Any] = field(default_factory=dict)
    phase: str = 'train'
    pair: bool = False
    leaves: dict[str, str] = field(default_factory=dict)


def _scenes(suffix: str, bands: int, names: tuple[str, ...], folder: str = '') -> Callable:
    def make(root: Path) -> None:
        for name in names:
            for number in range(2):
                path = root / folder / name / f'{name}_{number}{suffix}'
                _picture(path, bands)
        first = f'{names[0]}_0{suffix}'
        (root / 'list.txt').write_text(f'{first}\n')

    return make


def _picture(path: Path, bands: int = 3, size: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in ('.tif', '.tiff'):
        write_tif(path, numbers(bands, size, size))
        return
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)).save(path)


def _fmow(root: Path) -> None:
    _picture(root / 'train' / 'airport_0.jpg')
    _picture(root / 'train' / 'airport_1.jpg')
    lines = ['category,location', 'airport,train/airport_0.jpg', 'airport,train/airport_1.jpg']
    (root / 'train.csv').write_text('\n'.join(lines) + '\n')


def _naip(root: Path) -> None:
    (root / 'tiles').mkdir(parents=True)
    for number in range(3):
        np.save(root / 'tiles' / f'{number}tile.npy', np.full((8, 8, 4), number, np.uint8))
    np.save(root / 'y.npy', np.array([1, 2, 1]))
    np.save(root / 'splits.npy', np.array([0, 0, 0]))


def _tiles(root: Path) -> None:
    for number in range(2):
        write_tif(root / f'tile_{number}.tif', numbers(2, 128, 128, 'float32'))


def _packed(root: Path) -> None:
    from mmrsfm.datasets.packed_tiles import PackedTileWriter

    root.mkdir(parents=True, exist_ok=True)
    with PackedTileWriter(root / 'all.tiles', ['a', 'b'], ['x', 'y']) as writer:
        for number in range(3):
            writer.write(numbers(2, 16, 16, 'float32') + number, f'{number}', [number % 2])


def _pairs(root: Path, label: str | None = 'label') -> None:
    for name in 'ab':
        write_tif(root / 'rgb' / f'{name}.tif', numbers(3, dtype='uint8'))
        write_tif(root / 'sar' / f'{name}.tif', numbers(1, dtype='float32'))
        if label:
            write_tif(root / label / f'{name}.tif', numbers(1, dtype='uint8') % 3)


def _guso(root: Path) -> None:
    MAKERS['guso'](root, count=2, size=48)
    for image in (root / 'urban-train' / 'opt').iterdir():
        path = root / 'urban-train' / 'h' / f'{image.stem}.txt'
        path.parent.mkdir(exist_ok=True)
        path.write_text('1 0 0\n0 1 0\n0 0 1\n')


def _floods(root: Path) -> None:
    for number in range(3):
        write_tif(root / 'aligned' / '0001' / f's{number}.tif', numbers(2, dtype='float32'))
    lines = ['sequence,first,second,label', '0001,s0,s1,0', '0001,s0,s2,1']
    (root / 'pairs_train.csv').write_text('\n'.join(lines) + '\n')


def _coco(root: Path) -> None:
    for name in 'ab':
        _picture(root / 'train' / 'images' / f'{name}.png')
    content = {
        'images': [dict(id=i, file_name=f'{n}.png', height=24, width=24) for i, n in
                   enumerate('ab')],
        'annotations': [dict(id=i, image_id=i, category_id=1, bbox=[2, 3, 10, 8], area=80,
                             iscrowd=0, segmentation=[[2, 3, 12, 3, 12, 11, 2, 11]])
                        for i in range(2)],
        'categories': [dict(id=1, name='tree')],
    }  # fmt: skip
    for name in ('train', 'test'):
        (root / f'{name}.json').write_text(json.dumps(content))


def _seg_pngs(root: Path) -> None:
    for name in 'ab':
        _picture(root / 'train' / 'images' / f'{name}.png')
        label = np.zeros((24, 24), np.uint8)
        (root / 'train' / 'masks').mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(root / 'train' / 'masks' / f'{name}.png')


def _change(suffix: str = '.png') -> Callable:
    def make(root: Path) -> None:
        for folder in ('A', 'B'):
            for name in 'ab':
                _picture(root / 'train' / folder / f'{name}{suffix}')
        for name in 'ab':
            label = np.zeros((24, 24), np.uint8)
            label[:8] = 255
            (root / 'train' / 'label').mkdir(parents=True, exist_ok=True)
            Image.fromarray(label).save(root / 'train' / 'label' / f'{name}.png')

    return make


_UC = ('agricultural', 'airplane', 'baseballdiamond', 'beach', 'buildings', 'chaparral',
       'denseresidential', 'forest', 'freeway', 'golfcourse', 'harbor', 'intersection',
       'mediumresidential', 'mobilehomepark', 'overpass', 'parkinglot', 'river', 'runway',
       'sparseresidential', 'storagetanks', 'tenniscourt')  # fmt: skip
_SMALL = dict(count=2, size=48)
_8BIT = {'nan': 'no NaN in 8 bits'}
_CD = dict(
    images='train/A/*', labels='train/label/*', partner='train/B/*', scope='opencd', leaves=_8BIT
)
_DETECTION = dict(scope='mmdet', leaves=_8BIT)
_BOXES = dict(scope='mmrotate', leaves=_8BIT)


def _classes_of(name: str) -> tuple[str, ...]:
    return tuple(DATASETS.get(name).METAINFO['classes'])


CASES: dict[str, Case] = {
    # Classification
    'CustomDataset': Case(
        'eurosat_224px.py', ('eurosat', _SMALL), 'train/*/*', root='train',
        leaves={**_8BIT, 'missing_image': 'no list: one image fewer'},
    ),
    'CustomDataset-list': Case(
        'resisc45_224px.py', ('resisc45', _SMALL), 'all_img/*',
        index='mtp/train_labels_28_mtp.txt', leaves=_8BIT,
    ),
    'EuroSAT': Case(
        dict(type='mmrsfm.EuroSAT', modality='all_bands', ann_file='list.txt'),
        lambda root: _scenes('.tif', 13, _classes_of('mmrsfm.EuroSAT'))(root),
        'AnnualCrop/*', index='list.txt',
    ),
    'EuroSAT-rgb': Case(
        dict(type='mmrsfm.EuroSAT', ann_file='list.txt'),
        lambda root: _scenes('.jpg', 3, _classes_of('mmrsfm.EuroSAT'))(root),
        'AnnualCrop/*', index='list.txt', leaves=_8BIT,
    ),
    'RESISC45': Case(
        dict(type='mmrsfm.RESISC45', ann_file='list.txt'),
        lambda root: _scenes('.jpg', 3, _classes_of('mmrsfm.RESISC45'))(root),
        'airplane/*', index='list.txt', leaves=_8BIT,
    ),
    'UCMerced': Case(
        dict(type='mmrsfm.UCMerced', ann_file='list.txt'),
        lambda root: _scenes('.tif', 3, _classes_of('mmrsfm.UCMerced'))(root),
        'agricultural/*', index='list.txt',
    ),
    'WHURS19': Case(
        dict(type='mmrsfm.WHURS19', ann_file='list.txt'),
        lambda root: _scenes('.jpg', 3, _classes_of('mmrsfm.WHURS19'))(root),
        'Airport/*', index='list.txt', leaves=_8BIT,
    ),
    'SceneFolderDataset': Case(
        dict(type='mmrsfm.SceneFolderDataset', ann_file='list.txt'),
        _scenes('.tif', 4, ('a', 'b')), 'a/*', index='list.txt',
        leaves={'bands': 'no names of bands are given'},
    ),
    'LabelFraction': Case(
        dict(type='mmrsfm.LabelFraction', dataset=dict(type='mmrsfm.SceneFolderDataset')),
        _scenes('.tif', 4, ('a', 'b')), 'a/*',
        leaves={'bands': 'no names of bands are given', 'missing_image': 'one image fewer'},
    ),
    'FMoWRGB': Case(
        'fmow_rgb_128px.py', _fmow, 'train/*', index='train.csv', leaves=_8BIT
    ),
    'NAIPTiles': Case(
        'naip_tiles_224px.py', _naip, 'tiles/*', index='y.npy', leaves=_8BIT,
    ),
    'BigEarthNetV1': Case(
        'bigearthnetv1_s1_128px.py', ('bigearthnet_v1', dict(count=1, optical=False)),
        'BigEarthNet-S1-v1.0/*/*_VH.tif', labels='BigEarthNet-S1-v1.0/*/*.json',
        index='train.csv', partner='BigEarthNet-S1-v1.0/*/*_VV.tif',
    ),
    'BigEarthNetV1-zarr': Case(
        dict(type='mmrsfm.BigEarthNetV1', data_prefix=dict(s1='benv1.zarr/sentinel1')),
        ('bigearthnet_v1_zarr', dict(count=1)), 'benv1.zarr/sentinel1/*/VH/0.0',
        labels='benv1.zarr/sentinel1/*/.zattrs', partner='benv1.zarr/sentinel1/*/VV/.zarray',
        leaves={'bands': 'an array of one band', 'nan': 'see BigEarthNetV1'},
    ),
    'BigEarthNetV2': Case(
        'bigearthnetv2_s1_128px.py', ('bigearthnet_v2', dict(count=1)),
        'BigEarthNet-S1/*/*/*_VH.tif', index='metadata.csv',
        partner='BigEarthNet-S1/*/*/*_VV.tif', changes=dict(ann_file='metadata.csv'),
    ),
    'GeoBench': Case(
        dict(type='mmrsfm.GeoBench'), ('geobench', {}),
        'classification_v1.0/m-eurosat/train*.hdf5',
        index='classification_v1.0/m-eurosat/default_partition.json',
        root='classification_v1.0/m-eurosat',
        leaves=dict.fromkeys(('bands', 'nan'), 'see test_geobench.py'),
    ),
    'SEN12Flood': Case(
        dict(type='mmrsfm.SEN12Flood', data_prefix='train'), ('sen12_flood', dict(count=2)),
        'train/*.npy', leaves={'missing_image': 'no list: one pair fewer'},
    ),
    'SEN12Flood-pairs': Case(
        dict(type='mmrsfm.SEN12Flood', ann_file='pairs_train.csv'), _floods, 'aligned/*/*.tif',
        index='pairs_train.csv', partner='aligned/*/*.tif',
    ),
    'ScenePairDataset': Case(
        'scene_labels_256px.py', ('scene_labels', dict(count=1)), 'train/rgb/*/*',
        partner='train/sar/*/*', pair=True, changes=dict(on_missing='error'),
    ),
    'ScenePairDataset-json': Case(
        'scene_multilabels_256px.py', ('scene_multilabels', _SMALL), 'rgb/*',
        index='train.json', partner='sar/*', pair=True, changes=dict(on_missing='error'),
    ),
    # Pretraining
    'TileDataset': Case(
        'sentinel1_tiles_128px.py', _tiles, '*.tif',
        leaves={'missing_image': 'no list: one image fewer'},
    ),
    'PackedTileDataset': Case(
        dict(type='mmrsfm.PackedTileDataset', ann_file='all.tiles'), _packed, 'all.tiles',
        leaves={'bands': 'all tiles of a file have the same', 'nan': 'see test_packed_tiles.py'},
    ),
    'MaRS16M': Case(
        'mars16m_512px.py', ('mars_16m', dict(count=1, size=48)), 'Capella_patches/rgb/*.tif',
        partner='Capella_patches/sar/*.tif', pair=True,
        changes=dict(sensors=['capella'], on_missing='keep'),
        leaves=dict.fromkeys(('missing_image', 'missing_partner', 'no_images'), 'kept: see there'),
    ),
    'PairedModalityDataset': Case(
        dict(type='mmrsfm.PairedModalityDataset', data_prefix=dict(rgb='rgb', sar='sar')),
        lambda root: _pairs(root, None), 'rgb/*', partner='sar/*', pair=True,
    ),
    'GUSODataset': Case(
        dict(type='mmrsfm.GUSODataset', parts='urban-train', homography_dir='h'),
        _guso, 'urban-train/opt/*', labels='urban-train/h/*', partner='urban-train/sar/*',
        leaves=_8BIT,
    ),
    'MMEarth': Case(
        'mmearth_56px.py', ('mmearth', {}), 'data_1M_v001_64/*.h5',
        index='data_1M_v001_64/*_splits.json', partner='data_1M_v001_64/*_band_stats.json',
        root='data_1M_v001_64',
        leaves={'bands': 'see test_mmearth.py', 'nan': 'what is missing is found by tile'},
    ),
    # Segmentation, height, translation
    'LoveDADataset': Case(
        'loveda_512px.py', ('loveda', _SMALL), 'trainval/images/*', labels='trainval/labels/*',
        scope='mmseg', leaves={**_8BIT, 'missing_image': 'of mmseg: a label without image is none'},
    ),
    'BaseSegDataset': Case(
        'atlanta_demo_seg_192px.py', _seg_pngs, 'train/images/*', labels='train/masks/*',
        scope='mmseg', leaves={**_8BIT, 'missing_image': 'of mmseg: a label without image is none'},
    ),
    'SpaceNetV1Dataset': Case(
        'spacenetv1_384px.py', ('spacenet_v1', _SMALL), 'train/images/*', labels='train/labels/*',
        scope='mmseg', leaves=_8BIT,
    ),
    'GeoTIFFSegDataset': Case(
        'flood_masks_512px.py', ('flood_masks', dict(count=2, size=64)), 'train/images/*',
        labels='train/masks/*', scope='mmseg',
    ),
    'DeepGlobeRoadDataset': Case(
        'deepglobe_roads_512px.py', ('deepglobe', _SMALL), 'train/*_sat.jpg',
        labels='train/*_mask.png', index='train.txt', scope='mmseg', leaves=_8BIT,
        changes=dict(ann_file='train.txt'),
    ),
    'EarthMissDataset': Case(
        dict(type='mmrsfm.EarthMissDataset', cities=['Louisville']),
        ('earthmiss', dict(count=1, size=48)),
        'America-Louisville/images/RGB/*', labels='America-Louisville/masks/*',
        partner='America-Louisville/images/SAR/*', pair=True, scope='mmseg',
    ),
    'DFC25Dataset': Case(
        'dfc25_512px.py', ('dfc25', _SMALL), 'train/pre-event/*', labels='train/target/*',
        index='train_setlevel.txt', partner='train/post-event/*', pair=True, scope='mmseg',
    ),
    'MultiModalSegDataset': Case(
        dict(type='mmrsfm.MultiModalSegDataset',
             data_prefix=dict(rgb='rgb', sar='sar', seg_map_path='label')),
        _pairs, 'rgb/*', labels='label/*', partner='sar/*', pair=True, scope='mmseg',
    ),
    'DFC23HeightDataset': Case(
        'dfc23_height_512px.py', ('dfc23', _SMALL), 'train/rgb/*', labels='train/dsm/*',
        partner='train/sar/*', pair=True, scope='mmseg',
    ),
    # Change detection
    'OSCD_RGB_CD_Dataset': Case('oscd_224px.py', ('oscd', _SMALL), **_CD),
    'WHU_CD_Dataset': Case('whu_cd_256px.py', ('whu_cd', _SMALL), **_CD),
    'LEVIR_CD_Dataset': Case('levir_cd_256px.py', ('levir_cd', _SMALL), **_CD),
    'SVCD_Dataset': Case('cdd_256px.py', ('cdd', _SMALL), **_CD),
    **{
        name: Case(
            dict(type=f'opencd.{name}', data_prefix=dict(
                img_path_from='train/A', img_path_to='train/B', seg_map_path='train/label')),
            _change(suffix), **_CD,
        )
        for name, suffix in (
            ('CLCD_Dataset', '.png'), ('S2Looking_Dataset', '.png'), ('JL1_CD_Dataset', '.png'),
            ('RSIPAC_CD_Dataset', '.tif'), ('DSIFN_Dataset', '.jpg'), ('_BaseCDDataset', '.jpg'),
        )
    },
    # Detection
    'XViewDataset': Case(
        'xview_416px.py', ('xview', _SMALL), 'train/images/*',
        index='xview_train_coco_format.json', **_DETECTION,
    ),
    'DIORDataset': Case(
        'dior_800px.py', ('dior', _SMALL), 'JPEGImages-trainval/*',
        index='DIOR_trainval_coco.json', **_DETECTION,
    ),
    'SARDet100KDataset': Case(
        'sardet100k_1b_512px.py', ('sardet', _SMALL), 'JPEGImages/train/*',
        index='Annotations/train.json', **_DETECTION,
    ),
    'UBCv2Dataset': Case(
        'ubcv2_512px.py', ('ubcv2', _SMALL), 'train/rgb/*',
        index='annotations/*train*.json', partner='train/sar/*', pair=True, scope='mmdet',
    ),
    'CocoDataset': Case(
        'yellowstone_demo_ins_192px.py', _coco, 'train/images/*', index='train.json', **_DETECTION
    ),
    'DIORRDataset': Case(
        dict(type='mmrsfm.DIORRDataset', ann_file='ImageSets/Main/train.txt',
             data_prefix=dict(img_path='JPEGImages-trainval')),
        ('dior_r', _SMALL), 'JPEGImages-trainval/*', labels='Annotations/*/*.xml',
        index='ImageSets/Main/train.txt', **_BOXES,
    ),
    'DOTADataset': Case(
        'dota1_1024px.py', ('dota1', _SMALL), 'trainval/images/*', labels='trainval/annfiles/*',
        **_BOXES,
    ),
    'DOTADataset-test': Case(
        'dota1_1024px.py', ('dota1', _SMALL), 'test/images/*', phase='test', scope='mmrotate',
        leaves={**_8BIT, 'missing_image': 'no list: one image fewer'},
    ),
    'DOTAv2Dataset': Case(
        'dota2_1024px.py', ('dota2', _SMALL), 'trainval/images/*', labels='trainval/annfiles/*',
        **_BOXES,
    ),
    'FAIR1MDataset': Case(
        'fair1m_800px.py', ('fair1m', _SMALL), 'trainval/images/*', labels='trainval/annfiles/*',
        **_BOXES,
    ),
    # Several tasks
    **{
        f'SAMRSDataset-{name}': Case(
            dict(type='mmrsfm.MultiDataset', datasets=[
                dict(type='mmrsfm.SAMRSDataset', name=name, ann_file=ann_file),
            ]),
            (f'samrs_{name}', _SMALL), images, labels=labels, index=ann_file, partner=partner,
            **_BOXES,
        )
        for name, ann_file, images, labels, partner in (
            ('sota', 'sota_rbb_train_ins_segmentation.json', 'trainval/images/*',
             'trainval/rhbox_segs_init/gray/*', 'trainval/rbbtxts/*'),
            ('sior', 'sior_rbb_train_ins_segmentation.json', 'JPEGImages-trainval/*',
             'Annotations/*/*.xml', 'hbox_segs_trainvaltest_init/gray/*'),
            ('fast', 'train.txt', 'trainval/images/*',
             'trainval/rhbox_segs_init/ins/*', 'trainval/rbbtxts/*'),
        )
    },
}  # fmt: skip


def load_steps(pipeline: list[Any]) -> list[Any]:
    """The steps that read files."""
    return [one for one in pipeline if one['type'].split('.')[-1].startswith(_KEPT)]


def dataset_config(case: Case, root: Path) -> dict[str, Any]:
    """The dataset on a tree; its pipeline is what reads."""
    register_scope(case.scope)
    init_default_scope(case.scope)
    if isinstance(case.config, str):
        config = Config.fromfile(CONFIGS / case.config)
        config = config[f'{case.phase}_dataloader'].dataset.to_dict()
    else:
        config = json.loads(json.dumps(case.config))
    config.update(case.changes)
    _place(config, str(root / case.root), case)
    return config


def _place(config: dict[str, Any], root: str, case: Case) -> None:
    for inner in (config.get('dataset'), *config.get('datasets', ())):
        if inner is not None:
            _place(inner, root, case)
            return
    config['data_root'] = root
    kind = case.config['type'] if isinstance(case.config, dict) else ''
    default = _CHANGE if kind.startswith('opencd.') else PIPELINES.get(kind, _IMAGE)
    config.setdefault('pipeline', default)
    config['pipeline'] = load_steps(config['pipeline'])


_IMAGE = [dict(type='mmrsfm.LoadMultiBandImage')]
_MODALITIES = [
    dict(type='mmrsfm.LoadModalities', modalities=dict(rgb=3, sar=1)),
    dict(type='mmrsfm.LoadSegLabel'),
]
_CHANGE = [
    dict(type='opencd.MultiImgLoadImageFromFile'),
    dict(type='opencd.MultiImgLoadAnnotations'),
]
PIPELINES: dict[str, list[Any]] = {
    'mmrsfm.GeoBench': [dict(type='mmrsfm.LoadGeoBench')],
    'mmrsfm.SEN12Flood': [dict(type='mmrsfm.LoadImagePair')],
    'mmrsfm.PairedModalityDataset': _MODALITIES[:1],
    'mmrsfm.GUSODataset': _MODALITIES[:1],
    'mmrsfm.EarthMissDataset': _MODALITIES,
    'mmrsfm.MultiModalSegDataset': _MODALITIES,
    'mmrsfm.DIORRDataset': [
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    ],
    'mmrsfm.MultiDataset': [
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmrsfm.LoadMultiTaskAnnotations'),
    ],
}


def make_tree(case: Case, root: Path) -> Path:
    """Writes the undamaged tree."""
    if callable(case.tree):
        case.tree(root)
    else:
        name, options = case.tree
        MAKERS[name](root, **options)
    return root


def linked_copy(tree: Path, root: Path) -> Path:
    """A copy whose files are links: what is damaged is replaced, not written into."""
    shutil.copytree(tree, root, copy_function=os.link)
    return root


def first(root: Path, pattern: str) -> Path:
    """The first file of a pattern."""
    return next(path for path in sorted(root.glob(pattern)) if path.is_file())


def replace(path: Path, content: bytes) -> Path:
    """Gives a linked file other content."""
    path.unlink()
    path.write_bytes(content)
    return path


def read_all(case: Case, root: Path, **options: Any) -> list[Any]:
    """Builds the dataset as a training loop does, and reads every sample."""
    dataset = AddressedDataset(dataset_config(case, root), **options)
    return [dataset[index] for index in range(len(dataset))]


def _truncated(case: Case, root: Path) -> Path:
    path = first(root, case.images)
    return replace(path, path.read_bytes()[: path.stat().st_size * 6 // 10])


def _empty(case: Case, root: Path) -> Path:
    return replace(first(root, case.images), b'')


def _bands(case: Case, root: Path) -> Path:
    path = first(root, case.images)
    path.unlink()
    if path.suffix == '.npy':
        np.save(path, np.zeros((2, 7, 8, 8), np.float32))
        return path
    temporary = path.with_name('made.tif')
    write_tif(temporary, numbers(7, 48, 48, 'float32'))
    temporary.replace(path)
    return path


def _nan(case: Case, root: Path) -> Path:
    path = _without_numbers(first(root, case.images))
    if case.pair:
        _without_numbers(first(root, case.partner or ''))
    return path


def _without_numbers(path: Path) -> Path:
    if path.suffix == '.npy':
        array = np.load(path)
        path.unlink()
        np.save(path, np.full(array.shape, np.nan, np.float32))
        return path
    import rasterio

    with rasterio.open(path) as source:
        shape, names = (source.count, *source.shape), source.descriptions
    path.unlink()
    write_tif(path, np.full(shape, np.nan, np.float32), names=names if all(names) else None)
    return path


def _label(case: Case, root: Path) -> Path:
    path = first(root, case.labels or '')
    return replace(path, path.read_bytes()[: path.stat().st_size * 6 // 10])


def _label_empty(case: Case, root: Path) -> Path:
    return replace(first(root, case.labels or ''), b'')


def _label_noise(case: Case, root: Path) -> Path:
    return replace(first(root, case.labels or ''), b'\x80\x81garbage \xff \n{"a": [1, "b')


def _index(case: Case, root: Path) -> Path:
    path = first(root, case.index or '')
    return replace(path, path.read_bytes()[: path.stat().st_size * 6 // 10])


def _index_empty(case: Case, root: Path) -> Path:
    return replace(first(root, case.index or ''), b'')


def _index_noise(case: Case, root: Path) -> Path:
    return replace(first(root, case.index or ''), b'\x80\x81garbage \xff \n{"a": [1, "b')


def _missing_image(case: Case, root: Path) -> Path:
    path = first(root, case.images)
    path.unlink()
    return path


def _missing_partner(case: Case, root: Path) -> Path:
    path = first(root, case.partner or case.labels or '')
    path.unlink()
    return path


def _no_images(case: Case, root: Path) -> Path:
    for path in root.glob(case.images):
        if path.is_file():
            path.unlink()
    return root


def _nowhere(case: Case, root: Path) -> Path:
    shutil.rmtree(root)
    return root


def _no_folder(case: Case, root: Path) -> Path:
    shutil.rmtree(root)
    root.write_bytes(b'a file')
    return root


FAILURES: dict[str, Callable[[Case, Path], Path]] = {
    'truncated': _truncated,
    'empty': _empty,
    'bands': _bands,
    'nan': _nan,
    'label': _label,
    'label_empty': _label_empty,
    'label_noise': _label_noise,
    'index': _index,
    'index_empty': _index_empty,
    'index_noise': _index_noise,
    'missing_image': _missing_image,
    'missing_partner': _missing_partner,
    'no_images': _no_images,
    'nowhere': _nowhere,
    'no_folder': _no_folder,
}


def applies(case: Case, failure: str) -> bool:
    """Whether a dataset can fail so."""
    partner = case.partner or case.labels
    needs = {'label': case.labels, 'index': case.index, 'missing_partner': partner}
    for start, value in needs.items():
        if failure.startswith(start) and value is None:
            return False
    return failure not in case.leaves
