# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reading one image file of any format, number of bands and data type, with named errors.

``read_raster`` is a pure function from a file to an array and what the file says about it. Formats
are read by the library that reports damage most reliably: TIFF and JPEG 2000 by rasterio
(windowed), TIFFs that GDAL does not understand by tifffile, ``.npy`` by memory map, arrays of Zarr
stores by zarr, JPEG and PNG by Pillow (GDAL and OpenCV decode a truncated PNG without an error).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrsfm.datasets.zarr_array import is_zarr_array, read_zarr_array, zarr_image_shape
from mmrsfm.errors import BandMismatchError, CorruptImageError, ImageNotFoundError, ImageSizeError
from mmrsfm.utils.raster_errors import innermost

PILLOW_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')
TIFF_SUFFIXES = ('.tif', '.tiff')
BACKENDS = ('auto', 'rasterio', 'tifffile', 'numpy', 'pillow')

Window = tuple[int, int, int, int]
_CANNOT_OPEN = 'cannot be opened as an image'


@dataclass
class Raster:
    """What was read from one file.

    Attributes:
        array: (H, W, C) in the stored data type; may be a non-contiguous view.
        band_names: Names of the ``C`` bands where they are known.
        nodata: The file's no-data value for each of the ``C`` bands, or ``None``.
        mask: (H, W) bool, False where the file's own mask band says "no data"; ``None`` without
            one.
        geo: ``dict(crs=text such as 'EPSG:32618', transform=(a, b, c, d, e, f))`` with x = a*col +
            b*row + c and y = d*col + e*row + f, in the units of the CRS; ``None`` without
            georeference.
        full_shape: (H, W) of the whole file.
    """

    array: np.ndarray
    band_names: tuple[str, ...] | None
    nodata: tuple[float | None, ...]
    mask: np.ndarray | None
    geo: dict[str, Any] | None
    full_shape: tuple[int, int]


def read_raster(
    path: str | Path,
    bands: Sequence[str | int] | None = None,
    band_names: Sequence[str] | None = None,
    window: Window | None = None,
    backend: str = 'auto',
    npy_order: str = 'HWC',
) -> Raster:
    """Reads bands of one file.

    Args:
        path: The file, or the folder of a Zarr array. GDAL's virtual paths (``/vsi...``,
            ``scheme://...``) go to rasterio.
        bands: Bands to read, by name or one-based number, in this order; ``None`` reads all.
        band_names: Names of all bands of the file, in its order; ``None`` takes the file's own.
        window: (row, column, height, width) in pixels; ``None`` reads the whole image.
        backend: ``'auto'`` chooses by suffix; or one of rasterio, tifffile, numpy, pillow.
        npy_order: ``'HWC'`` or ``'CHW'``: the order of the axes of a three-dimensional ``.npy``
            or Zarr array.

    Raises:
        ImageNotFoundError: The file is not there.
        CorruptImageError: It cannot be decoded (truncated, damaged, not an image).
        BandMismatchError: A band is asked for that it does not hold, or the number of names is not
            the number of bands, or the values are complex.
        ImageSizeError: The window is not inside the image.
    """
    name = str(path)
    virtual = name.startswith('/vsi') or '://' in name
    request = _Request(name, bands, band_names, window, npy_order)
    if virtual or Path(name).is_file():
        raster = _choose(name, backend, virtual)(request)
    elif is_zarr_array(name):
        raster = request.finish(read_zarr_array(name, npy_order))
    else:
        raise ImageNotFoundError('no such file', path=name)
    if np.iscomplexobj(raster.array):
        raise BandMismatchError(
            f'complex values ({raster.array.dtype}) are not imagery that a model can take',
            path=name,
            hint='Convert it to intensity or amplitude first',
        )
    return raster


def select_bands(
    count: int,
    bands: Sequence[str | int] | None,
    band_names: Sequence[str] | None,
    path: str | Path | None,
) -> list[int]:
    """Turns a selection by name or one-based number into zero-based positions.

    Raises:
        BandMismatchError: If a name or number is not there, or the names do not fit ``count``.
    """
    if band_names is not None and len(band_names) != count:
        raise BandMismatchError(
            f'{count} bands, but {len(band_names)} band names were given: {list(band_names)}',
            path=path,
        )
    if bands is None:
        return list(range(count))
    positions = []
    for band in bands:
        if isinstance(band, str):
            if band_names is None:
                raise BandMismatchError(
                    'asked for by name, but the file does not name its bands',
                    path=path,
                    band=band,
                    hint='Give band_names=[...] of all bands, or choose by one-based number',
                )
            if band not in band_names:
                raise BandMismatchError(
                    f'not among its bands {list(band_names)}', path=path, band=band
                )
            positions.append(list(band_names).index(band))
        elif 1 <= band <= count:
            positions.append(int(band) - 1)
        else:
            raise BandMismatchError(
                f'the file has {count} band(s), counted from 1', path=path, band=band
            )
    return positions


@dataclass
class _Request:
    path: str
    bands: Sequence[str | int] | None
    band_names: Sequence[str] | None
    window: Window | None
    npy_order: str

    def select(
        self, count: int, own_names: Sequence[str] | None
    ) -> tuple[list[int], tuple[str, ...] | None]:
        names = self.band_names if self.band_names is not None else own_names
        positions = select_bands(count, self.bands, names, self.path)
        return positions, None if names is None else tuple(names[i] for i in positions)

    def check_window(self, height: int, width: int) -> Window:
        if self.window is None:
            return 0, 0, height, width
        row, column, h, w = (int(value) for value in self.window)
        if row < 0 or column < 0 or h < 1 or w < 1 or row + h > height or column + w > width:
            raise ImageSizeError(
                f'window (row, col, height, width) = {self.window} is not inside the image of '
                f'{height} x {width} pixels (H x W)',
                path=self.path,
            )
        return row, column, h, w

    def finish(self, image: np.ndarray, own_names: Sequence[str] | None = None) -> Raster:
        """From a whole image (H, W, C) in memory (or in a memory map)."""
        positions, names = self.select(image.shape[2], own_names)
        full = image.shape[:2]
        row, column, h, w = self.check_window(*full)
        image = image[row : row + h, column : column + w]
        if positions != list(range(image.shape[2])):
            image = image[:, :, positions]
        return Raster(np.asarray(image), names, (None,) * len(positions), None, None, full)


def _choose(path: str, backend: str, virtual: bool) -> Callable[[_Request], Raster]:
    readers: dict[str, Callable[[_Request], Raster]] = {
        'rasterio': _read_rasterio,
        'tifffile': _read_tifffile,
        'numpy': _read_npy,
        'pillow': _read_pillow,
    }
    if backend != 'auto':
        return readers[backend]
    suffix = Path(path).suffix.lower()
    if suffix == '.npy':
        return _read_npy
    if suffix in PILLOW_SUFFIXES and not virtual:
        return _read_pillow
    if suffix in TIFF_SUFFIXES and not virtual:
        return _read_tiff
    return _read_rasterio


def _read_tiff(request: _Request) -> Raster:
    """Rasterio, and tifffile for what GDAL does not understand (float16, odd layouts)."""
    try:
        return _read_rasterio(request)
    except CorruptImageError as error:
        if not error.reason.startswith(_CANNOT_OPEN):
            raise  # damaged, not unknown: tifffile fills some kinds of holes without a word
        try:
            return _read_tifffile(request)
        except CorruptImageError:
            raise error from None  # GDAL's account of the damage is the better one


def _read_rasterio(request: _Request) -> Raster:
    import rasterio
    from rasterio.enums import MaskFlags
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.windows import Window as RasterioWindow

    path = request.path
    # A truncated JPEG (also inside a TIFF) is otherwise a warning and grey pixels.
    options = {'GDAL_ERROR_ON_LIBJPEG_WARNING': 'TRUE', 'GDAL_DISABLE_READDIR_ON_OPEN': 'TRUE'}
    with warnings.catch_warnings(), rasterio.Env(**options):
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            source = rasterio.open(path)
        except RasterioError as error:
            raise CorruptImageError(f'{_CANNOT_OPEN} ({error})', path=path) from error
        with source:
            positions, names = request.select(source.count, _own_band_names(source))
            row, column, h, w = request.check_window(source.height, source.width)
            window = RasterioWindow(column, row, w, h)
            indexes = [position + 1 for position in positions]
            try:
                array = source.read(indexes, window=window)
            except RasterioError as error:
                raise CorruptImageError(
                    f'cannot be decoded ({innermost(error)})',
                    path=path,
                    band=_first_bad_band(source, indexes, names, window),
                ) from error
            mask = None
            flags = source.mask_flag_enums[positions[0]]
            if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
                mask = source.dataset_mask(window=window) > 0
            nodata = tuple(source.nodatavals[position] for position in positions)
            geo = None
            if source.crs is not None or not source.transform.is_identity:
                a, b, c, d, e, f = tuple(source.transform)[:6]
                corner = (a, b, a * column + b * row + c, d, e, d * column + e * row + f)
                crs = source.crs.to_string() if source.crs is not None else None
                geo = {'crs': crs, 'transform': corner}
            return Raster(array.transpose(1, 2, 0), names, nodata, mask, geo, source.shape)


def _own_band_names(source: Any) -> tuple[str, ...] | None:
    if source.count and all(source.descriptions):
        if len(set(source.descriptions)) == source.count:
            return tuple(source.descriptions)
        return None
    colours = [colour.name for colour in source.colorinterp]
    if colours[:3] == ['red', 'green', 'blue'] and colours[3:] in ([], ['alpha']):
        return ('R', 'G', 'B', 'A')[: source.count]
    return None


def _first_bad_band(
    source: Any, indexes: list[int], names: tuple[str, ...] | None, window: Any
) -> str | int | None:
    """The one band that is damaged, or ``None`` where every band is (or none by itself)."""
    from rasterio.errors import RasterioError

    bad = []
    for position, index in enumerate(indexes):
        try:
            source.read(index, window=window)
        except RasterioError:
            bad.append(index if names is None else names[position])
    return bad[0] if bad and (len(bad) < len(indexes) or len(indexes) == 1) else None


def _read_tifffile(request: _Request) -> Raster:
    import tifffile

    try:
        with tifffile.TiffFile(request.path) as file:
            series = file.series[0]
            image, axes = series.asarray(), series.axes
    except Exception as error:  # tifffile lets errors of every kind of codec through
        raise CorruptImageError(f'cannot be decoded ({error})', path=request.path) from error
    if image.ndim == 2 and image.size:
        image = image[:, :, None]
    elif image.ndim == 3 and axes.endswith('YX'):
        image = image.transpose(1, 2, 0)
    elif not (image.ndim == 3 and axes.startswith('YX')):
        raise CorruptImageError(
            f'holds no image with rows, columns and bands (axes {axes}, shape {image.shape})',
            path=request.path,
        )
    return request.finish(image)


def _read_npy(request: _Request) -> Raster:
    try:
        image = np.load(request.path, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise CorruptImageError(
            f'not a readable .npy array ({error})', path=request.path
        ) from error
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        raise CorruptImageError(
            f'an image has two or three axes, got {getattr(image, "shape", type(image))}',
            path=request.path,
        )
    if image.ndim == 2:
        image = image[:, :, None]
    elif request.npy_order == 'CHW':
        image = image.transpose(1, 2, 0)
    raster = request.finish(image)
    # Out of the memory map: the file must be read here, where an error can be named.
    raster.array = np.array(raster.array, order='K')
    return raster


def _read_pillow(request: _Request) -> Raster:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(request.path) as image:
            if image.format == 'PNG' and image.mode not in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA'):
                array = None  # 16 bits: Pillow would reduce several bands to 8 bits
            else:
                array = np.asarray(image if image.mode != '1' else image.convert('L'))
            mode = image.mode
    except UnidentifiedImageError as error:
        raise CorruptImageError('not an image that Pillow knows', path=request.path) from error
    except Image.DecompressionBombError:
        return _read_rasterio(request)  # more than 179 million pixels are a large tile here
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptImageError(f'cannot be decoded ({error})', path=request.path) from error
    if array is None or _png_bit_depth(request.path) == 16:
        return _read_rasterio(request)
    if array.ndim == 2:
        array = array[:, :, None]
    names = {'RGB': ('R', 'G', 'B'), 'RGBA': ('R', 'G', 'B', 'A')}.get(mode)
    return request.finish(array, names)


def _png_bit_depth(path: str) -> int | None:
    """Bits per channel of a PNG whose end is there; ``None`` for any other file."""
    with Path(path).open('rb') as file:
        header = file.read(26)
        if header[:8] != b'\x89PNG\r\n\x1a\n':
            return None
        file.seek(-12, 2)
        if file.read()[4:8] != b'IEND':
            raise CorruptImageError('truncated: the end of the PNG is missing', path=path)
    return header[24]


def image_shape(path: str | Path) -> tuple[int, int]:
    """(H, W) of a file in pixels, from its header where rasterio reads the format.

    Raises:
        DataError: As :func:`read_raster`.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if Path(path).suffix.lower() not in ('.npy', *PILLOW_SUFFIXES):
        if is_zarr_array(path):
            return zarr_image_shape(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            try:
                with rasterio.open(path) as source:
                    return source.shape
            except RasterioError:
                pass  # read_raster finds out what is wrong, or another way to read it
    return read_raster(path, bands=[1], window=(0, 0, 1, 1)).full_shape
