# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reading files: every format, and every way in which a file can be bad."""

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from mmrsfm.datasets.raster import image_shape, read_raster
from mmrsfm.errors import (
    BandMismatchError,
    CorruptImageError,
    DataError,
    ImageNotFoundError,
    ImageSizeError,
)
from tests.test_datasets.imagery import TRANSFORM, numbers, truncate, write_tif

NAMES = ('B02', 'B03', 'B04', 'B08')


@pytest.fixture
def noise():
    """(4, 64, 64) that does not compress, so that a truncated file lacks pixels."""
    return np.random.default_rng(0).integers(0, 2**16, (4, 64, 64), dtype=np.uint16)


@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'uint16', 'int32', 'float32', 'float64'])
@pytest.mark.parametrize('interleave', ['band', 'pixel'])
def test_geotiff(tmp_path, dtype, interleave):
    array = numbers(dtype=dtype)
    path = write_tif(tmp_path / 'a.tif', array, NAMES, nodata=7, interleave=interleave)
    raster = read_raster(path)
    assert raster.array.dtype == dtype
    assert np.array_equal(raster.array, array.transpose(1, 2, 0))
    assert raster.band_names == NAMES
    assert raster.nodata == (7, 7, 7, 7)
    assert raster.geo == {'crs': 'EPSG:32618', 'transform': tuple(TRANSFORM)[:6]}


def test_bands_by_name_and_number_in_the_order_asked_for(tmp_path):
    array = numbers()
    path = write_tif(tmp_path / 'a.tif', array, NAMES)
    raster = read_raster(path, bands=['B08', 1, 'B03'])
    assert np.array_equal(raster.array, array[[3, 0, 1]].transpose(1, 2, 0))
    assert raster.band_names == ('B08', 'B02', 'B03')


def test_names_given_take_precedence(tmp_path):
    path = write_tif(tmp_path / 'a.tif', numbers(), NAMES)
    raster = read_raster(path, bands=['nir'], band_names=['b', 'g', 'r', 'nir'])
    assert raster.band_names == ('nir',)
    assert np.array_equal(raster.array[..., 0], numbers()[3])


def test_unnamed_bands_stay_unnamed(tmp_path):
    assert read_raster(write_tif(tmp_path / 'a.tif', numbers())).band_names is None
    twice = write_tif(tmp_path / 'b.tif', numbers(), ['x', 'x', 'y', 'z'])
    assert read_raster(twice).band_names is None


@pytest.mark.parametrize('suffix', ['.tif', '.npy', '.png'])
def test_window(tmp_path, suffix):
    array = numbers(3, dtype='uint8')
    path = str(tmp_path / f'a{suffix}')
    if suffix == '.tif':
        write_tif(path, array)
    elif suffix == '.npy':
        np.save(path, array.transpose(1, 2, 0))
    else:
        Image.fromarray(array.transpose(1, 2, 0)).save(path)
    raster = read_raster(path, window=(5, 7, 10, 8))
    assert np.array_equal(raster.array, array[:, 5:15, 7:15].transpose(1, 2, 0))
    assert raster.full_shape == image_shape(path) == (24, 20)
    if suffix == '.tif':
        assert raster.geo['transform'][2::3] == (500000.0 + 70, 4200000.0 - 50)
    for window in [(20, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 16, 5, 5)]:
        with pytest.raises(ImageSizeError, match=r'24 x 20 pixels') as caught:
            read_raster(path, window=window)
        assert caught.value.path == path


def test_jpeg2000(tmp_path):
    array = numbers(2, 64, 64)
    options = {'QUALITY': '100', 'REVERSIBLE': 'YES'}
    path = write_tif(tmp_path / 'a.jp2', array, driver='JP2OpenJPEG', **options)
    raster = read_raster(path, window=(3, 5, 20, 30))
    assert np.array_equal(raster.array, array[:, 3:23, 5:35].transpose(1, 2, 0))
    assert raster.geo['crs'] == 'EPSG:32618'


def test_npy_in_both_orders(tmp_path):
    array = numbers(5, dtype='float32')
    np.save(tmp_path / 'chw.npy', array)
    np.save(tmp_path / 'hwc.npy', array.transpose(1, 2, 0))
    np.save(tmp_path / 'hw.npy', array[0])
    chw = read_raster(tmp_path / 'chw.npy', bands=[2, 5], npy_order='CHW')
    hwc = read_raster(tmp_path / 'hwc.npy', bands=[2, 5])
    assert np.array_equal(chw.array, hwc.array)
    assert not isinstance(hwc.array, np.memmap)
    assert read_raster(tmp_path / 'hw.npy').array.shape == (24, 20, 1)


def test_png_and_jpeg_have_colour_names(tmp_path):
    rgb = numbers(3, dtype='uint8').transpose(1, 2, 0)
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    raster = read_raster(tmp_path / 'a.png', bands=['B', 'R'])
    assert np.array_equal(raster.array, rgb[..., [2, 0]])
    Image.fromarray(rgb).save(tmp_path / 'a.jpg')
    assert read_raster(tmp_path / 'a.jpg').band_names == ('R', 'G', 'B')
    Image.fromarray(rgb[..., 0]).save(tmp_path / 'grey.png')
    assert read_raster(tmp_path / 'grey.png').array.shape == (24, 20, 1)


@pytest.mark.parametrize('bands', [1, 3])
def test_png_of_16_bits(tmp_path, bands):
    array = numbers(bands)
    path = write_tif(tmp_path / 'a.png', array, driver='PNG', geo=False)
    raster = read_raster(path)
    assert raster.array.dtype == np.uint16
    assert np.array_equal(raster.array, array.transpose(1, 2, 0))


@pytest.mark.parametrize('bands', [1, 3])
def test_png_of_more_pixels_than_pillow_takes(tmp_path, monkeypatch, bands):
    array = numbers(bands, dtype='uint8').transpose(1, 2, 0)
    Image.fromarray(array.squeeze()).save(tmp_path / 'a.png')
    whole = read_raster(tmp_path / 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    raster = read_raster(tmp_path / 'a.png')
    assert np.array_equal(raster.array, array) and raster.band_names == whole.band_names


def test_tiff_that_gdal_does_not_know(tmp_path):
    array = numbers(1, dtype='float16')[0]
    tifffile.imwrite(tmp_path / 'a.tif', array)
    raster = read_raster(tmp_path / 'a.tif')
    assert np.array_equal(raster.array[..., 0].astype('float32'), array.astype('float32'))
    planes = numbers(4, dtype='uint16')
    tifffile.imwrite(tmp_path / 'b.tif', planes, planarconfig='separate', photometric='minisblack')
    for backend in ('rasterio', 'tifffile'):
        read = read_raster(tmp_path / 'b.tif', backend=backend).array
        assert np.array_equal(read, planes.transpose(1, 2, 0))


def test_mask_band_of_the_file(tmp_path):
    import rasterio

    path = write_tif(tmp_path / 'a.tif', numbers())
    mask = np.full((24, 20), 255, np.uint8)
    mask[:4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK='YES'), rasterio.open(path, 'r+') as target:
        target.write_mask(mask)
    assert np.array_equal(read_raster(path).mask, mask > 0)
    assert read_raster(path, window=(2, 0, 4, 4)).mask.sum() == 8


# -- bad files -------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['a.tif', 'a.npy', 'a.png', 'a.jp2'])
def test_missing(tmp_path, name):
    with pytest.raises(ImageNotFoundError, match=rf'{name}: no such file') as caught:
        read_raster(tmp_path / name)
    assert isinstance(caught.value, DataError)
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize('content', [b'', b'not an image at all', b'II*\x00', b'\x93NUMPY'])
@pytest.mark.parametrize('name', ['a.tif', 'a.npy', 'a.png', 'a.jpg', 'a.jp2'])
def test_not_an_image(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptImageError) as caught:
        read_raster(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)
    assert caught.value.reason


@pytest.mark.parametrize('fraction', [0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    ('suffix', 'options'),
    [
        ('.tif', {}),
        ('.tif', {'compress': 'deflate', 'tiled': True, 'blockxsize': 16, 'blockysize': 16}),
        ('.tif', {'interleave': 'band', 'compress': 'lzw'}),
        ('.jp2', {'driver': 'JP2OpenJPEG', 'QUALITY': '100', 'REVERSIBLE': 'YES'}),
        ('.npy', None),
        ('.png', None),
        ('.jpg', None),
        ('_16.png', {'driver': 'PNG', 'geo': False}),
    ],
    ids=['tif', 'tiled', 'planes', 'jp2', 'npy', 'png', 'jpg', 'png16'],
)
def test_truncated_anywhere(tmp_path, noise, suffix, options, fraction):
    whole = tmp_path / f'whole{suffix}'
    if options is not None:
        write_tif(whole, noise[:3], **options)
    elif suffix == '.npy':
        np.save(whole, noise)
    else:
        Image.fromarray((noise[:3] >> 8).astype(np.uint8).transpose(1, 2, 0)).save(whole)
    read_raster(whole)
    path = truncate(whole, tmp_path / f'cut{suffix}', fraction)
    with pytest.raises(CorruptImageError) as caught:
        read_raster(path)
    assert caught.value.path == path
    assert path in str(caught.value)


@pytest.mark.parametrize('suffix', ['.tif', '.jpg'])
def test_a_cut_jpeg_does_not_end_in_grey(tmp_path, noise, suffix):
    array = (noise[:3] >> 8).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    driver = {'driver': 'JPEG', 'geo': False} if suffix == '.jpg' else {'compress': 'jpeg'}
    whole = write_tif(tmp_path / f'a{suffix}', array, **driver)
    assert read_raster(whole).array.shape == (256, 256, 3)
    for fraction in (0.5, 0.9, 0.99):
        path = truncate(whole, tmp_path / f'cut{suffix}', fraction)
        with pytest.raises(CorruptImageError):
            read_raster(path)


def test_the_damaged_band_is_named(tmp_path, noise):
    path = write_tif(tmp_path / 'a.tif', noise, NAMES, interleave='band', compress='deflate')
    data = bytearray((tmp_path / 'a.tif').read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start = page.dataoffsets[2 * len(page.dataoffsets) // 4]
    data[start : start + 64] = bytes(64)  # the third plane does not inflate any more
    (tmp_path / 'a.tif').write_bytes(data)
    with pytest.raises(CorruptImageError, match='band B04') as caught:
        read_raster(path)
    assert caught.value.band == 'B04'
    assert read_raster(path, bands=['B02', 'B08']).array.shape == (64, 64, 2)


def test_wrong_bands(tmp_path):
    named = write_tif(tmp_path / 'a.tif', numbers(), NAMES)
    plain = write_tif(tmp_path / 'b.tif', numbers())
    with pytest.raises(BandMismatchError, match=r"band B11: not among its bands \['B02'"):
        read_raster(named, bands=['B02', 'B11'])
    with pytest.raises(BandMismatchError, match='band 5: the file has 4 band'):
        read_raster(named, bands=[5])
    with pytest.raises(BandMismatchError, match='band 0:'):
        read_raster(named, bands=[0])
    with pytest.raises(BandMismatchError, match='does not name its bands'):
        read_raster(plain, bands=['B02'])
    with pytest.raises(BandMismatchError, match='4 bands, but 2 band names') as caught:
        read_raster(plain, band_names=['B02', 'B03'])
    assert caught.value.path == plain


def test_complex_values_are_refused(tmp_path):
    path = write_tif(tmp_path / 'a.tif', numbers(dtype='complex64'))
    with pytest.raises(BandMismatchError, match='complex') as caught:
        read_raster(path)
    assert caught.value.path == path


def test_npy_that_is_no_image(tmp_path):
    np.save(tmp_path / 'a.npy', np.zeros((2, 3, 4, 5)))
    with pytest.raises(CorruptImageError, match='two or three axes'):
        read_raster(tmp_path / 'a.npy')
    np.save(tmp_path / 'b.npy', np.array([{'x': 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptImageError, match='not a readable'):
        read_raster(tmp_path / 'b.npy')


def test_errors_cross_process_boundaries(tmp_path):
    with pytest.raises(ImageNotFoundError) as caught:
        read_raster(tmp_path / 'a.tif')
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.path == caught.value.path
