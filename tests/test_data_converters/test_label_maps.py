# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Change detection, buildings and land cover: labels, sizes, partners."""

import json
import logging

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from data_converters.cd_patches import (
    change_label,
    cut_folders,
    cut_pair,
    find_triples,
    patch_starts,
)
from data_converters.loveda_merge import loveda_merge
from data_converters.loveda_server_labels import loveda_server_labels
from data_converters.oscd_to_rgb import oscd_to_rgb, read_label
from data_converters.spacenet_to_masks import building_mask, pair_files, spacenet_to_masks
from mmrsfm.errors import (
    ConfigError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
    ImageSizeError,
)
from tests import formats

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


def write_image(path, array, crs='EPSG:4326', transform=None):
    array = np.atleast_3d(array).transpose(2, 0, 1)
    with rasterio.open(
        path, 'w', driver='GTiff', count=len(array), height=array.shape[1], width=array.shape[2],
        dtype=array.dtype, crs=crs, transform=transform,
    ) as out:  # fmt: skip
        out.write(array)
    return path


class TestSpaceNet:
    UTM = from_origin(700000.0, 3700000.0, 0.5, 0.5)

    def geojson(self, path, ring, crs=None, **geometry):
        geometry = {'type': 'Polygon', 'coordinates': [ring], **geometry}
        content = {'type': 'FeatureCollection', 'features': [{'geometry': geometry}]}
        if crs:
            content['crs'] = {'type': 'name', 'properties': {'name': crs}}
        path.write_text(json.dumps(content))
        return path

    def test_another_system_than_that_of_the_image(self, tmp_path):
        image = write_image(
            tmp_path / 'a.tif', np.zeros((40, 60), np.uint8), 'EPSG:32616', self.UTM
        )
        ring = [[700005, 3699995], [700015, 3699995], [700015, 3699990], [700005, 3699990]]
        ring.append(ring[0])
        direct = building_mask(self.geojson(tmp_path / 'a.json', ring, 'EPSG:32616'), image)
        assert direct[10:20, 10:30].all() and direct.sum() == 200 and direct.dtype == np.uint8
        degrees = transform_geom(
            'EPSG:32616', 'OGC:CRS84', {'type': 'Polygon', 'coordinates': [ring]}
        )['coordinates'][0]
        turned = building_mask(self.geojson(tmp_path / 'b.json', degrees), image)
        np.testing.assert_array_equal(turned, direct)

    @pytest.mark.parametrize(
        'geometry',
        [
            dict(type='Point', coordinates=[0, 0]),
            dict(type='MultiPolygon', coordinates=[]),
            dict(type='Polygon', coordinates=[[[0, 0], [1, 1]]]),
            dict(type='GeometryCollection', geometries=[]),
        ],
    )
    def test_what_is_no_area_does_not_count(self, tmp_path, geometry):
        image = write_image(tmp_path / 'a.tif', np.zeros((8, 8), np.uint8), transform=self.UTM)
        assert not building_mask(self.geojson(tmp_path / 'a.json', [], **geometry), image).any()

    def test_errors_name_file_and_feature(self, tmp_path):
        image = write_image(tmp_path / 'a.tif', np.zeros((8, 8), np.uint8), transform=self.UTM)
        path = self.geojson(tmp_path / 'a.json', [], coordinates=3)
        with pytest.raises(DataError, match=r'a\.json: feature 0 has no usable geometry'):
            building_mask(path, image)
        path.write_text('[]')
        with pytest.raises(DataError, match=r'a\.json: is no geojson'):
            building_mask(path, image)
        plain = write_image(tmp_path / 'b.tif', np.zeros((8, 8), np.uint8), crs=None)
        with pytest.raises(DataError, match=r'b\.tif: has no georeference'):
            building_mask(path, plain)

    def test_an_empty_file_means_no_buildings(self, tmp_path, monkeypatch):
        root = formats.SOURCES['spacenet_v1'](tmp_path / 'a')
        blank = sorted((root / 'geojson').iterdir())[0]
        blank.write_bytes(b'')
        notes = []
        logger = logging.getLogger('mmrsfm')
        monkeypatch.setattr(logger, 'warning', lambda text, *args: notes.append(text % args))
        counts = spacenet_to_masks(root / '3band', root / 'geojson', tmp_path / 'b', 0.0)
        assert counts['val'] == 0 and len(notes) == 1 and f'such as {blank.name}' in notes[0]
        name = f'3band_{blank.stem.removeprefix("Geo_")}.png'
        assert not cv2.imread(str(tmp_path / 'b/train/labels' / name), cv2.IMREAD_UNCHANGED).any()

    def test_files_without_partner(self, tmp_path):
        root = formats.SOURCES['spacenet_v1'](tmp_path)
        (root / 'geojson/Geo_AOI_1_RIO_img2.geojson').unlink()
        with pytest.raises(ConfigError, match="the image of 'AOI_1_RIO_img2'"):
            pair_files(root / '3band', root / 'geojson', '3band_', 'Geo_')

    def test_sixteen_bits(self, tmp_path):
        for folder in ('3band', 'geojson'):
            (tmp_path / folder).mkdir()
        values = np.random.default_rng(0).integers(1, 2047, (40, 60), dtype=np.uint16)
        write_image(tmp_path / '3band/3band_a.tif', values, 'EPSG:32616', self.UTM)
        self.geojson(tmp_path / 'geojson/Geo_a.geojson', [])
        folders = (tmp_path / '3band', tmp_path / 'geojson', tmp_path / 'out')
        with pytest.raises(DataError, match='uint16'):
            spacenet_to_masks(*folders, quiet=True)
        assert spacenet_to_masks(*folders, stretch=(2, 98), quiet=True) == {'train': 1, 'val': 0}
        image = cv2.imread(str(tmp_path / 'out/train/images/3band_a.png'))
        assert image.min() == 0 and image.max() == 255
        with pytest.raises(ConfigError, match='such as 3band_b'):
            spacenet_to_masks(*folders, val_names=['3band_b'], stretch=(2, 98), quiet=True)


class TestChange:
    @pytest.mark.parametrize(
        ('values', 'highest', 'expected'),
        [
            ([0, 1, 1], 1, [0, 255, 255]),
            ([0, 255, 0], 255, [0, 255, 0]),
            ([0, 0, 0], 0, [0, 0, 0]),
            ([3, 127, 128, 250], 250, [0, 0, 255, 255]),  # jpeg
            ([0, 1, 0], 255, [0, 0, 0]),  # a patch of a label with 255 elsewhere
        ],
    )
    def test_labels(self, values, highest, expected):
        label = change_label(np.array([values], np.uint8), highest)
        assert label.tolist() == [expected] and label.dtype == np.uint8

    @pytest.mark.parametrize(
        ('length', 'edge', 'starts'),
        [
            (1024, 'pad', [0, 256, 512, 768]),
            (1025, 'pad', [0, 256, 512, 768, 1024]),
            (1025, 'shift', [0, 256, 512, 768, 769]),
            (1025, 'drop', [0, 256, 512, 768]),
            (100, 'pad', [0]),
            (100, 'shift', [0]),
            (100, 'drop', []),
        ],
    )
    def test_starts(self, length, edge, starts):
        assert patch_starts(length, 256, edge) == starts

    def test_the_number_of_patches_of_whu(self):
        # 32507 x 15354 pixels: 7620 patches in the publications that cut it.
        assert len(patch_starts(32507, 256, 'pad')) * len(patch_starts(15354, 256, 'pad')) == 7620

    def test_every_kind_of_label(self, tmp_path):
        for kind in ('whu_cd', 'levir_cd', 'cdd'):
            root = formats.MAKERS[kind](tmp_path / kind)
            cut_folders(root, tmp_path / f'{kind}_out', 32, quiet=True)
            for triple in find_triples(root / 'train'):
                label = cv2.imread(str(triple[2]), cv2.IMREAD_GRAYSCALE)
                label = np.where(label >= (128 if label.max() > 1 else 1), 255, 0)
                for top, left in ((0, 0), (32, 32)):
                    name = f'{triple[0].stem}_{top:04d}_{left:04d}.png'
                    patch = cv2.imread(
                        str(tmp_path / f'{kind}_out/train/label' / name), cv2.IMREAD_UNCHANGED
                    )
                    different = patch != label[top : top + 32, left : left + 32]
                    # Two decoders of JPEG differ by a grey level, some at the threshold.
                    assert different.mean() <= (0.01 if kind == 'cdd' else 0)

    @pytest.mark.parametrize('suffix', ['png', 'jpg'])
    def test_faint_labels(self, tmp_path, suffix):
        image = write_image(tmp_path / 'a.tif', np.zeros((32, 32, 3), np.uint8))
        # A black JPEG may decode to 1 everywhere, which is no change; in a PNG it is one.
        cv2.imwrite(str(tmp_path / f'1.{suffix}'), np.ones((32, 32), np.uint8))
        cut_pair(
            image, image, tmp_path / f'1.{suffix}', tmp_path, {'one': 1.0}, size=32, quiet=True
        )
        patch = cv2.imread(str(tmp_path / 'one/label/a_0000_0000.png'), cv2.IMREAD_UNCHANGED)
        assert (patch == (0 if suffix == 'jpg' else 255)).all()
        # 1 and 2, as OSCD has them, would be no change at all.
        label = write_image(tmp_path / '2.tif', np.full((32, 32), 2, np.uint8))
        with pytest.raises(DataError, match=r'2\.tif: the label goes up to 2'):
            cut_pair(image, image, label, tmp_path, {'two': 1.0}, size=32)

    def test_sizes_and_partners(self, tmp_path):
        root = formats.SOURCES['levir_cd'](tmp_path / 'a')
        other = cv2.imread(str(root / 'val/B/val_1.png'))[:-3]
        cv2.imwrite(str(root / 'val/B/val_1.png'), other)
        with pytest.raises(ImageSizeError, match=r'val_1\.png: 128 x 125 pixels'):
            cut_folders(root, tmp_path / 'out', 64, quiet=True)
        (root / 'test/label/test_2.png').unlink()
        with pytest.raises(DatasetNotFoundError, match=r'label: lacks 1 images .* test_2'):
            find_triples(root / 'test')
        with pytest.raises(ConfigError, match='is a folder of the source'):
            cut_folders(root, root, 64, quiet=True)
        with pytest.raises(ConfigError, match='edge'):
            cut_folders(root, tmp_path / 'out', 64, edge='mirror', quiet=True)
        image = root / 'train/A/train_1.png'
        with pytest.raises(ConfigError, match='positive parts of 1'):
            cut_pair(image, image, image, tmp_path / 'o', {'train': 2.0})
        with pytest.raises(DatasetNotFoundError, match='train, val or test'):
            cut_folders(tmp_path, tmp_path / 'out', quiet=True)

    def test_oscd(self, tmp_path):
        root = formats.SOURCES['oscd'](tmp_path / 'oscd', count=1)
        images, train, test = sorted(root.iterdir(), key=lambda path: 'Test' in path.name)
        if 'Train' in images.name:
            images, train = train, images
        city = next(path for path in train.iterdir())
        tif = read_label(train, city.name)
        (city / 'cm' / f'{city.name}-cm.tif').unlink()
        np.testing.assert_array_equal(read_label(train, city.name), tif)
        (images / city.name / 'imgs_2_rect/B03.tif').unlink()
        with pytest.raises(DatasetNotFoundError, match='imgs_2_rect: 0 files for the band B03'):
            oscd_to_rgb(images, tmp_path / 'out', train, test, quiet=True)


class TestLoveDA:
    def test_clashes_and_missing_masks(self, tmp_path):
        root = formats.SOURCES['loveda'](tmp_path / 'loveda')
        for kind in ('images_png', 'masks_png'):
            place = root / 'Val/Urban' / kind
            (place / '3514.png').rename(place / '1.png')
        with pytest.raises(ConfigError, match=r'1\.png and .*1\.png have the same name'):
            loveda_merge(root, tmp_path / 'out', quiet=True)
        assert not (tmp_path / 'out').exists()
        (root / 'Train/Rural/masks_png/1.png').unlink()
        with pytest.raises(DatasetNotFoundError, match=r'1 without a partner, such as 1\.png'):
            loveda_merge(root, tmp_path / 'out', quiet=True)

    def test_server_labels_are_not_made_in_place(self, tmp_path):
        cv2.imwrite(str(tmp_path / '1.png'), np.ones((4, 4), np.uint8))
        with pytest.raises(ConfigError, match='another target'):
            loveda_server_labels(tmp_path, tmp_path)
        cv2.imwrite(str(tmp_path / '2.png'), np.ones((4, 4, 3), np.uint8))
        with pytest.raises(ImageSizeError, match=r'2\.png: 3 channels'):
            loveda_server_labels(tmp_path, tmp_path / 'out', quiet=True)
        (tmp_path / '2.png').write_text('no picture')
        with pytest.raises(CorruptImageError, match=r'2\.png'):
            loveda_server_labels(tmp_path, tmp_path / 'out', quiet=True)
