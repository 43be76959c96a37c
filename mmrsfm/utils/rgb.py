# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Three 8-bit channels from any raster, in windows, and PNG files: for the data converters.

Training reads rasters with :mod:`mmrsfm.datasets.raster`; this is for writing the pictures that
RGB benchmarks are made of.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from mmrsfm.errors import CorruptImageError, DataError, DatasetNotFoundError
from mmrsfm.utils.conversion import files_of, write_whole

# Once for all: these are pictures, and catching warnings is not safe in threads.
warnings.filterwarnings('ignore', category=NotGeoreferencedWarning)

# GDAL would keep decoded blocks in a twentieth of all memory, though nothing is read twice; and a
# truncated JPEG would be a warning and grey pixels. To open a file it would list the folder, each
# time, for what may lie beside the file: in folders of 20,000 that takes longer than all else.
_OPTIONS = {
    'GDAL_CACHEMAX': 64, 'GDAL_ERROR_ON_LIBJPEG_WARNING': 'TRUE',
    'GDAL_DISABLE_READDIR_ON_OPEN': 'TRUE',
}  # fmt: skip

# Suffixes of pictures in the benchmarks, in small letters.
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp')


def files_of_images(folder: str | Path) -> list[Path]:
    """Pictures of a folder, by name; see :func:`mmrsfm.utils.conversion.files_of`."""
    return files_of(folder, *IMAGE_SUFFIXES)


def image_stem(name: str) -> str:
    """A name in a list of images without its folder and without the suffix of a picture."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


@contextmanager
def open_raster(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    """Opens a file for reading in the thread that uses it.

    Args:
        path: Any file that GDAL opens.

    Yields:
        The open file.

    Raises:
        DatasetNotFoundError: If there is no such file.
        CorruptImageError: If it is no raster.
    """
    if not Path(path).is_file():
        raise DatasetNotFoundError('there is no such image', path=path)
    with rasterio.Env(**_OPTIONS):
        try:
            source = rasterio.open(path)
        except RasterioError as error:
            raise CorruptImageError(f'cannot be opened ({error})', path=path) from error
        with source:
            yield source


class RGBRaster:
    """Reads a raster as RGB, uint8: grey is repeated, palettes are resolved, alpha is left out.

    Args:
        path: Any file that GDAL opens.
        stretch: Two percentiles, e.g. ``(2, 98)``, that become 0 and 255 in each channel; needed
            for other than 8-bit samples, which have no natural range. Pixels that are zero or no
            data in all channels do not count. Measured on the whole raster.

    Raises:
        DatasetNotFoundError: If there is no such file.
        CorruptImageError: If it is no raster.
        DataError: For samples of other than 8 bits without a ``stretch``.
    """

    def __init__(self, path: str | Path, stretch: tuple[float, float] | None = None) -> None:
        self.path = path
        self._stack = ExitStack()
        self._source = self._stack.enter_context(open_raster(path))
        try:
            self._prepare(stretch)
        except BaseException:
            self._stack.close()
            raise

    def _prepare(self, stretch: tuple[float, float] | None) -> None:
        self.height, self.width = self._source.shape
        self._bands = [1, 2, 3] if self._source.count >= 3 else [1]
        self._palette: np.ndarray | None = None
        if self._source.colorinterp[0] == ColorInterp.palette:
            self._palette = np.zeros((256, 3), np.uint8)
            for value, colour in self._source.colormap(1).items():
                self._palette[value] = colour[:3]
        kind = self._source.dtypes[0]
        self._range: tuple[np.ndarray, np.ndarray] | None = None
        if stretch is not None and self._palette is None:
            self._range = percentiles(self._raw(None), stretch, self._source.nodata)
        elif kind != 'uint8':
            raise DataError(
                f'has samples of the type {kind}, not uint8',
                path=self.path,
                hint='Two percentiles that become 0 and 255 are needed (--stretch 2 98, where the '
                'command has it), or files of 8 bits',
            )

    def __enter__(self) -> RGBRaster:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, window: Window | None = None) -> np.ndarray:
        """Reads a window, or all.

        Args:
            window: Within the raster.

        Returns:
            RGB, uint8 (H, W, 3).

        Raises:
            CorruptImageError: If it cannot be decoded.
        """
        raw = self._raw(window)
        if self._palette is not None:
            return self._palette[raw[0]]
        if self._range is not None:
            raw = scale_to_bytes(raw, *self._range)
        if len(raw) == 1:
            raw = np.repeat(raw, 3, axis=0)
        return np.ascontiguousarray(raw.transpose(1, 2, 0))

    def strips(self, tops: Sequence[int], height: int) -> Iterator[tuple[int, np.ndarray]]:
        """Reads overlapping horizontal strips, each row once, top to bottom.

        PNG and JPEG can only be decoded from the top: to read windows of them one by one would
        decode the file again for each, and to read all needs the memory of all.

        Args:
            tops: First rows, ascending.
            height: Rows of a strip; the last ones may be cut by the lower edge.

        Yields:
            First row and strip, uint8 (<= height, W, 3).
        """
        held: np.ndarray = np.empty((0, self.width, 3), np.uint8)
        first = 0
        for top in tops:
            bottom = min(top + height, self.height)
            held, first = held[max(top - first, 0) :], max(top, first)
            start = first + len(held)
            if start < bottom:
                fresh = self.read(Window(0, start, self.width, bottom - start))
                held = np.concatenate([held, fresh])
            yield top, held[: bottom - top]

    def _raw(self, window: Window | None) -> np.ndarray:
        return read_bands(self._source, self._bands, window)


def read_bands(
    source: rasterio.DatasetReader, bands: int | Sequence[int] = 1, window: Window | None = None
) -> np.ndarray:
    """Reads an open raster as it is.

    Args:
        source: Of :func:`open_raster`.
        bands: A number from 1, or several.
        window: Within the raster; all of it by default.

    Returns:
        (H, W) for one number, (C, H, W) for several.

    Raises:
        CorruptImageError: If it cannot be decoded.
    """
    try:
        return source.read(bands, window=window)
    except RasterioError as error:
        raise CorruptImageError(f'cannot be decoded ({error})', path=source.name) from error


def percentiles(
    bands: np.ndarray, stretch: tuple[float, float], nodata: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Two percentiles of each band, over the pixels that are not empty in all bands.

    Args:
        bands: (C, ...) of any real type.
        stretch: The percentiles, 0 <= low < high <= 100.
        nodata: A value that means no data, besides zero and NaN.

    Returns:
        Low and high value by band, float64 (C,).
    """
    flat: np.ndarray = bands.reshape(len(bands), -1)
    empty = (flat == 0) | ~np.isfinite(flat)
    if nodata is not None:
        empty |= flat == nodata
    flat = flat[:, ~empty.all(axis=0)]
    if flat.shape[1] == 0:
        return np.zeros(len(bands)), np.ones(len(bands))
    low, high = np.nanpercentile(flat.astype(np.float64), stretch, axis=1)
    return low, high


def scale_to_bytes(bands: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Maps ``low`` .. ``high`` of each band to 0 .. 255, rounded and clipped.

    Args:
        bands: (C, H, W).
        low: What becomes 0, (C,).
        high: What becomes 255, (C,).

    Returns:
        uint8 (C, H, W).
    """
    width = np.where(high > low, high - low, 1.0)[:, None, None]
    scaled = (np.nan_to_num(bands.astype(np.float64)) - low[:, None, None]) / width * 255
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image in pixels, from its header; errors as :func:`open_raster`."""
    with open_raster(path) as source:
        return source.width, source.height


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Writes a PNG that appears when it is complete.

    Args:
        path: The file.
        image: RGB (H, W, 3) or grey (H, W), uint8.
    """
    pixels = image[..., ::-1] if image.ndim == 3 else image
    done, data = cv2.imencode('.png', np.ascontiguousarray(pixels))
    if not done:
        raise DataError(f'an image of shape {image.shape} cannot be written', path=path)
    write_whole(path, data.tobytes())
