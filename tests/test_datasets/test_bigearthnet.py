# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""BigEarthNet: both versions in all forms, labels, filters, tables, and what may be missing."""

import csv
import shutil
import sys
import types

import numpy as np
import pytest
import rasterio

from mmrsfm.datasets import BigEarthNetV1, BigEarthNetV2
from mmrsfm.datasets.bigearthnet_labels import (
    CLASSES_19,
    CLASSES_43,
    GROUPS,
    label_numbers,
    nomenclature,
)
from mmrsfm.datasets.bigearthnet_table import read_table, season_of
from mmrsfm.datasets.raster import image_shape
from mmrsfm.errors import (
    ConfigError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
    ImageNotFoundError,
    MissingDependencyError,
)
from tests.formats.bigearthnet import (
    OLD_TO_NEW,
    make_bigearthnet_v1,
    make_bigearthnet_v1_zarr,
    make_bigearthnet_v2,
)

LOAD = [dict(type='mmrsfm.LoadMultiBandImage'), dict(type='mmrsfm.PackInputs')]
COUNT = 3
S1 = 'S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39'


@pytest.fixture(scope='module')
def v2(tmp_path_factory):
    return make_bigearthnet_v2(tmp_path_factory.mktemp('v2'), count=COUNT)


@pytest.fixture(scope='module')
def v1(tmp_path_factory):
    return make_bigearthnet_v1(tmp_path_factory.mktemp('v1'), count=COUNT)


@pytest.fixture(scope='module', params=[2, 3])
def zarr_store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('zarr')
    return make_bigearthnet_v1_zarr(folder, count=COUNT, zarr_format=request.param)


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def read_band(path):
    with rasterio.open(path) as source:
        return source.read(1)


class TestLabels:
    def test_groups_cover_each_old_class_once(self):
        members = [member for group in GROUPS for member in group]
        assert len(CLASSES_43) == 43 and len(CLASSES_19) == 19 == len(GROUPS)
        left_out = {3, 4, 5, 6, 7, 8, 9, 10, 30, 32, 37}
        assert sorted([*members, *left_out]) == list(range(43))

    @pytest.mark.parametrize('old', OLD_TO_NEW)
    def test_regrouping_as_published(self, old):
        new = OLD_TO_NEW[old]
        wanted = [] if new is None else [CLASSES_19.index(new)]
        assert label_numbers([old], 19, 43) == wanted
        assert label_numbers([old], 43, 43) == [CLASSES_43.index(old)]

    def test_one_class_of_two_old_ones(self):
        olds = ['Water courses', 'Water bodies', 'Sea and ocean']
        assert label_numbers(olds, 19, 43) == [17, 18]

    def test_errors(self):
        with pytest.raises(DataError, match="'Lava' is none of the 43"):
            label_numbers(['Lava'], 19, 43)
        with pytest.raises(DataError, match='of 19 classes'):
            label_numbers(['Urban fabric'], 43, 19)
        assert nomenclature(['Urban fabric', 'Pastures']) == 19
        assert nomenclature(['Airports']) == 43
        assert nomenclature(['Pastures']) is None


class TestVersion2:
    def test_values_and_labels_are_those_of_the_files(self, v2):
        dataset = BigEarthNetV2(data_root=str(v2), ann_file='metadata.csv', pipeline=LOAD)
        table = rows(v2 / 'metadata.csv')
        assert len(dataset) == 3 * COUNT == len(table)
        for number, row in enumerate(table):
            item = dataset[number]
            name = row['s1_name']
            folder = v2 / 'BigEarthNet-S1' / '_'.join(name.split('_')[:5]) / name
            for band, plane in zip(('VH', 'VV'), item['inputs'], strict=True):
                np.testing.assert_array_equal(plane, read_band(folder / f'{name}_{band}.tif'))
            sample = item['data_samples']
            assert sample.band_names == ('VH', 'VV')
            # Every class of the row, and no other, whatever breaks the text of the list.
            text = ' '.join(row['labels'].split())
            named = [CLASSES_19[at] for at in sample.gt_label.tolist()]
            assert sorted(named) == sorted(one for one in CLASSES_19 if f"'{one}'" in text)

    def test_split_files_of_the_paper_are_the_split_column(self, v2):
        for split in ('train', 'val', 'test'):
            by_file = BigEarthNetV2(data_root=str(v2), ann_file=f'benv2_{split}.csv')
            by_column = BigEarthNetV2(data_root=str(v2), ann_file='metadata.csv', split=split)
            names = [one['sample_name'] for one in by_file]
            assert names == [one['sample_name'] for one in by_column]
            assert len(names) == COUNT
        both = BigEarthNetV2(
            data_root=str(v2), ann_file=['benv2_train.csv', 'benv2_val.csv'], split=None
        )
        assert len(both) == len(
            BigEarthNetV2(data_root=str(v2), ann_file='metadata.csv', split=['train', 'val'])
        )

    def test_both_sensors_on_one_grid(self, v2):
        dataset = BigEarthNetV2(
            data_root=str(v2), ann_file='metadata.csv', modalities=['s1', 's2'], pipeline=LOAD
        )
        item = dataset[0]
        assert item['inputs'].shape == (14, 120, 120)
        paths = dataset.get_data_info(0)['modality_paths']
        assert [len(paths[name]) for name in ('s1', 's2')] == [2, 12]
        np.testing.assert_array_equal(item['inputs'][3], read_band(paths['s2'][1]))
        only = BigEarthNetV2(data_root=str(v2), ann_file='metadata.csv', modalities='s2')
        assert only[0]['img_path'] == paths['s2']

    def test_country_and_season(self, v2):
        options = dict(data_root=str(v2), ann_file='metadata.csv')
        for country in ('Austria', 'Finland', 'Portugal'):
            wanted = [r['s1_name'] for r in rows(v2 / 'metadata.csv') if r['country'] == country]
            found = BigEarthNetV2(countries=country, **options)
            assert [one['sample_name'] for one in found] == wanted
        winter = BigEarthNetV2(seasons='winter', **options)
        assert {one['country'] for one in winter} == {'Finland'}
        assert {one['season'] for one in winter} == {'winter'}
        assert [season_of(month) for month in (12, 3, 8, 9)] == [
            'winter', 'spring', 'summer', 'autumn',
        ]  # fmt: skip
        with pytest.raises(DatasetNotFoundError, match='is left'):
            BigEarthNetV2(countries='Austria', seasons='winter', **options)

    def test_filters_that_the_table_does_not_know(self, v2, tmp_path):
        (tmp_path / 'list.csv').write_text(
            "['Pastures'],S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57\n"
        )
        with pytest.raises(ConfigError, match='no such column'):
            BigEarthNetV2(
                data_root=str(v2), ann_file=str(tmp_path / 'list.csv'), countries='Austria'
            )

    def test_the_43_classes_are_not_in_its_metadata(self, v2):
        with pytest.raises(DataError, match='of 19 classes'):
            BigEarthNetV2(data_root=str(v2), ann_file='metadata.csv', num_classes=43)

    def test_parquet(self, v2, tmp_path, monkeypatch):
        (tmp_path / 'metadata.parquet').write_bytes(b'PAR1')
        monkeypatch.setitem(sys.modules, 'pyarrow', None)
        with pytest.raises(MissingDependencyError, match='pip install pyarrow'):
            read_table(tmp_path / 'metadata.parquet')
        table = [
            {**row, 'labels': np.array(['Pastures', 'Arable land'], dtype=object)}
            for row in rows(v2 / 'metadata.csv')
        ]
        package = types.ModuleType('pyarrow')
        package.parquet = types.SimpleNamespace(
            read_table=lambda path: types.SimpleNamespace(to_pylist=lambda: table)
        )
        monkeypatch.setitem(sys.modules, 'pyarrow', package)
        dataset = BigEarthNetV2(
            data_root=str(v2), ann_file=str(tmp_path / 'metadata.parquet'), split='test'
        )
        assert len(dataset) == COUNT
        assert dataset.get_cat_ids(0) == [2, 4]

    def test_missing_files(self, v2, tmp_path):
        root = tmp_path / 'copy'
        shutil.copytree(v2 / 'BigEarthNet-S1', root / 'BigEarthNet-S1')
        shutil.copy(v2 / 'metadata.csv', root)
        options = dict(data_root=str(root), ann_file='metadata.csv')
        gone = BigEarthNetV2(**options)[1]['img_path']
        (root / gone[1]).unlink()
        assert len(BigEarthNetV2(on_missing='skip', **options)) == 3 * COUNT - 1
        with pytest.raises(ImageNotFoundError, match='_VV'):
            BigEarthNetV2(pipeline=LOAD, **options)[1]
        kept = [dict(type='mmrsfm.LoadMultiBandImage', missing='invalid'), LOAD[1]]
        sample = BigEarthNetV2(pipeline=kept, **options)[1]['data_samples']
        assert sample.valid_mask[0].all() and not sample.valid_mask[1].any()
        (root / gone[0]).unlink()
        with pytest.raises(ImageNotFoundError, match='nor any of the 2 bands'):
            BigEarthNetV2(pipeline=kept, **options)[1]
        for path in BigEarthNetV2(**options)[0]['img_path']:
            (root / path).unlink()
        with pytest.raises(DatasetNotFoundError, match='of the first patch'):
            BigEarthNetV2(**options)

    def test_nan_by_policy(self, v2, tmp_path):
        root = tmp_path / 'copy'
        shutil.copytree(v2 / 'BigEarthNet-S1', root / 'BigEarthNet-S1')
        shutil.copy(v2 / 'metadata.csv', root)
        path = BigEarthNetV2(data_root=str(root), ann_file='metadata.csv')[0]['img_path'][0]
        with rasterio.open(path, 'r+') as file:
            image = file.read(1)
            image[:12] = np.nan
            file.write(image, 1)

        def load(limit):
            pipeline = [dict(type='mmrsfm.LoadMultiBandImage', max_invalid=limit), LOAD[1]]
            return BigEarthNetV2(data_root=str(root), ann_file='metadata.csv', pipeline=pipeline)[0]

        for limit in (None, 0.1):
            item = load(limit)
            assert item['inputs'].isfinite().all()
            assert item['data_samples'].valid_mask.sum((1, 2)).tolist() == [12960, 14400]
        with pytest.raises(CorruptImageError, match=r'band VH: 10\.0% of the pixels'):
            load(0)
        with pytest.raises(ConfigError, match='max_invalid'):
            load(2)

    def test_wrong_arguments(self, v2):
        options = dict(data_root=str(v2), ann_file='metadata.csv')
        for wrong in (
            dict(modalities=['s3']),
            dict(modalities=[]),
            dict(num_classes=20),
            dict(split='dev'),
            dict(seasons=['monsoon']),
            dict(on_missing='keep'),
        ):
            with pytest.raises(ConfigError):
                BigEarthNetV2(**{**options, **wrong})
        with pytest.raises(ConfigError, match='ann_file must name'):
            BigEarthNetV2(data_root=str(v2))
        with pytest.raises(DatasetNotFoundError, match='no such table'):
            BigEarthNetV2(data_root=str(v2), ann_file='nothing.csv')
        with pytest.raises(DatasetNotFoundError, match='no such folder'):
            BigEarthNetV2(data_root=str(v2 / 'nowhere'), ann_file='metadata.csv')


class TestVersion1:
    @pytest.mark.parametrize('num_classes', [19, 43])
    def test_store_and_folders_agree(self, v1, zarr_store, num_classes):
        options = dict(num_classes=num_classes, ann_file='train.csv', pipeline=LOAD)
        folders = BigEarthNetV1(data_root=str(v1), **options)
        store = BigEarthNetV1(
            data_root=str(zarr_store), data_prefix=dict(s1='benv1.zarr/sentinel1'), **options
        )
        assert len(store) == len(folders) == COUNT
        for one, other in zip(store, folders, strict=True):
            np.testing.assert_array_equal(one['inputs'], other['inputs'])
            assert one['data_samples'].gt_label.tolist() == other['data_samples'].gt_label.tolist()
        assert image_shape(store.get_data_info(0)['img_path'][0]) == (120, 120)

    def test_classes_of_the_first_version(self, v1):
        old = BigEarthNetV1(data_root=str(v1), ann_file='train.csv', num_classes=43)
        new = BigEarthNetV1(data_root=str(v1), ann_file='train.csv')
        for number in range(COUNT):
            names = [CLASSES_43[at] for at in old.get_cat_ids(number)]
            wanted = sorted({OLD_TO_NEW[name] for name in names} - {None})
            assert sorted(CLASSES_19[at] for at in new.get_cat_ids(number)) == wanted
        assert CLASSES_43.index('Airports') in old.get_cat_ids(COUNT - 1)

    def test_without_a_table_all_patches(self, v1, zarr_store):
        alone = BigEarthNetV1(data_root=str(v1))
        pairs = BigEarthNetV1(data_root=str(v1), modalities=['s1', 's2'], pipeline=LOAD)
        assert len(alone) == len(pairs) == 3 * COUNT
        assert pairs[0]['inputs'].shape == (14, 120, 120)
        stored = BigEarthNetV1(
            data_root=str(zarr_store), data_prefix=dict(s1='benv1.zarr/sentinel1'), form='zarr'
        )
        assert len(stored) == 3 * COUNT

    def test_patches_without_a_class(self, v1, tmp_path):
        root = tmp_path / 'copy'
        shutil.copytree(v1, root)
        name = BigEarthNetV1(data_root=str(root))[0]['sample_name']
        labels = root / 'BigEarthNet-S1-v1.0' / name / f'{name}_labels_metadata.json'
        labels.write_text('{"labels": ["Airports"]}')
        kept = BigEarthNetV1(data_root=str(root), pipeline=LOAD)
        assert kept[0]['data_samples'].gt_label.tolist() == []
        assert len(BigEarthNetV1(data_root=str(root), keep_unlabelled=False)) == len(kept) - 1
        labels.write_text('{"label": 1}')
        with pytest.raises(DataError, match='no list of labels'):
            BigEarthNetV1(data_root=str(root))
        labels.write_text('{')
        with pytest.raises(DataError, match='is not JSON'):
            BigEarthNetV1(data_root=str(root))

    def test_country_by_the_metadata_of_version_2(self, v1, tmp_path):
        lines = ['patch_id,labels,split,country,s1_name,s2v1_name']
        for split, country in (('train', 'Austria'), ('test', 'Serbia')):
            patch, radar = (v1 / f'{split}.csv').read_text().splitlines()[0].split(',')
            lines.append(f"{patch}_X,['Pastures'],{split},{country},{radar},{patch}")
        (tmp_path / 'metadata.csv').write_text('\n'.join(lines))
        options = dict(data_root=str(v1), ann_file=str(tmp_path / 'metadata.csv'))
        found = BigEarthNetV1(countries=['Serbia'], **options)
        assert [one['sample_name'] for one in found] == [lines[2].split(',')[4]]
        assert len(BigEarthNetV1(modalities='s2', split='train', **options)) == 1

    def test_a_pair_that_is_not_stated(self, v1, tmp_path):
        root = tmp_path / 'copy'
        shutil.copytree(v1, root)
        name = BigEarthNetV1(data_root=str(root))[0]['sample_name']
        labels = root / 'BigEarthNet-S1-v1.0' / name / f'{name}_labels_metadata.json'
        labels.write_text('{"labels": ["Pastures"]}')
        with pytest.raises(DatasetNotFoundError, match=f'name the S2 patch of {name}'):
            BigEarthNetV1(data_root=str(root), modalities=['s1', 's2'])

    def test_damaged_arrays(self, zarr_store, tmp_path):
        shutil.copytree(zarr_store, tmp_path / 'copy')
        options = dict(
            data_root=str(tmp_path / 'copy'), data_prefix=dict(s1='benv1.zarr/sentinel1')
        )
        path = BigEarthNetV1(**options)[0]['img_path'][0]
        metadata = next(p for p in (f'{path}/.zarray', f'{path}/zarr.json') if _exists(p))
        with open(metadata, 'w') as file:
            file.write('{')
        with pytest.raises(CorruptImageError, match='VH'):
            BigEarthNetV1(pipeline=LOAD, **options)[0]

    def test_wrong_arguments(self, v1):
        with pytest.raises(ConfigError, match='form is one of'):
            BigEarthNetV1(data_root=str(v1), form='lmdb')


def _exists(path):
    try:
        with open(path):
            return True
    except OSError:
        return False


class TestTable:
    def test_a_row_that_names_nothing(self, tmp_path):
        path = tmp_path / 'list.csv'
        path.write_text('patch_id,s1_name\nfoo,\n')
        with pytest.raises(DataError, match='line 2: names no'):
            read_table(path)
        path.write_text('\n')
        with pytest.raises(DatasetNotFoundError, match='names no patches'):
            read_table(path)
        path.write_text('s1_name,split\nS1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39,dev\n')
        with pytest.raises(DataError, match="'dev' is no split"):
            read_table(path)
        path.write_text('s1_name,labels\nS1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39,Pastures\n')
        with pytest.raises(DataError, match='no list of class names'):
            read_table(path)

    @pytest.mark.parametrize(
        'labels',
        [
            "['Pastures' 'Transitional woodland, shrub']",
            "['Pastures', 'Transitional woodland, shrub']",
            '["Pastures", "Transitional woodland, shrub"]',
            "['Pastures'\n 'Transitional woodland,\nshrub']",
            "('Pastures', 'Transitional woodland, shrub',)",
        ],
    )
    def test_lists_of_labels_as_text(self, tmp_path, labels):
        path = tmp_path / 'list.csv'
        text = labels.replace('"', '""')
        # The title of pandas' index is empty.
        path.write_text(f',labels,s1_name\n0,"{text}",{S1}\n')
        (patch,) = read_table(path)
        assert patch.labels == ('Pastures', 'Transitional woodland, shrub')
        assert patch.s1 == S1

    def test_no_label_is_lost(self, tmp_path):
        path = tmp_path / 'list.csv'
        # As DuckDB writes lists: quotes only where there is a comma.
        path.write_text(f'labels,s1_name\n"[Pastures, \'Transitional woodland, shrub\']",{S1}\n')
        with pytest.raises(DataError, match=r'line 2: .* is no list of class names'):
            read_table(path)

    def test_files_of_another_kind(self, tmp_path):
        path = tmp_path / 'list.csv'
        path.write_bytes(b'PAR1\x15\xff\x00\x80')
        with pytest.raises(DataError, match='no table in text'):
            read_table(path)

    def test_real_parquet(self, tmp_path):
        pytest.importorskip('pyarrow')
        root = make_bigearthnet_v2(tmp_path / 'v2', count=2, optical=False, parquet=True)
        assert read_table(root / 'metadata.parquet') == read_table(root / 'metadata.csv')
        (root / 'metadata.parquet').write_bytes(b'PAR1 and no more')
        with pytest.raises(DataError, match='cannot be read as parquet'):
            read_table(root / 'metadata.parquet')

    def test_a_leading_space_and_a_header_of_another_name(self, tmp_path):
        path = tmp_path / 'list.csv'
        path.write_text('S2, S1\nx, S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39\n')
        assert [one.s1 for one in read_table(path)] == [
            'S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39'
        ]
