# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reading windows of one scene, or of several of one place on the grid of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window, intersect, intersection

from mmrsfm.apis.scene.area import Area
from mmrsfm.apis.scene.bands import Bands, choose_bands
from mmrsfm.apis.scene.grid import Tile
from mmrsfm.apis.scene.pipeline import InputSpec
from mmrsfm.apis.scene.scene_files import open_scene
from mmrsfm.apis.scene.tile_data import TileInput
from mmrsfm.datasets.raster import _own_band_names
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
)
from mmrsfm.utils.raster_errors import innermost

ON_ERROR = ('raise', 'skip')
_CACHE = (64 << 20, 512 << 20)


class SceneSource:
    """Reads tiles, from one thread at a time.

    The grid is that of the first scene: rows, columns, CRS and transform as they are, also where
    the transform is rotated or points south up. A further scene with another grid is reprojected
    onto it window by window; what it does not cover is no data.

    Args:
        paths: One scene for each input of the model, anything that GDAL reads; ``None`` for an
            input that is optional.
        inputs: What the model reads of each.
        bands: For each scene, which bands they are; see :func:`mmrsfm.apis.scene.bands.
            choose_bands`. One mapping or list for all is possible too.
        band_names: Names of all bands of the files, instead of those that they state themselves;
            of several scenes for those that have as many bands.
        area: Where results are wanted; ``None``: everywhere.
        on_error: Blocks of a file that cannot be decoded: ``'raise'``, or ``'skip'``: they are no
            data, and named in :attr:`unreadable`.
        stretch: Values that become 0 and 255, for models of 8-bit pictures and scenes of another
            type.
        resampling: How further scenes are reprojected: a name of rasterio's.
        known_names: Names of all bands of the dataset's files: for scenes that state none and have
            as many bands.

    Attributes:
        paths: As given.
        height: Rows of the grid.
        width: Columns.
        crs: Its CRS; ``None`` without one.
        transform: From (column, row) to (x, y).
        file_bands: The ``band_names`` that were given, else the ``known_names``.
        unreadable: For each block that was skipped ``dict(path, row, col, height, width, bands,
            reason)``, in pixels of the grid.

    Raises:
        ImageNotFoundError: If a scene is not there.
        CorruptImageError: If it cannot be opened or, when read, decoded.
        BandMismatchError: If its bands are not those of the model.
        ImageSizeError: If scenes without CRS differ in size.
        DataError: If two scenes do not overlap, or values are not 8-bit where they must be.
        ConfigError: If scenes and inputs of the model do not correspond.
    """

    def __init__(
        self,
        paths: Sequence[str | Path | None],
        inputs: Sequence[InputSpec],
        bands: Bands | Sequence[Bands | None] | None = None,
        band_names: Sequence[str] | None = None,
        area: Area | None = None,
        on_error: str = 'raise',
        stretch: tuple[float, float] | None = None,
        resampling: str = 'bilinear',
        known_names: Sequence[str] | None = None,
    ) -> None:
        if stretch is not None and not -np.inf < stretch[0] < stretch[1] < np.inf:
            raise ConfigError(f'stretch is a lower and a higher value, got {tuple(stretch)}')
        if on_error not in ON_ERROR:
            raise ConfigError(f'on_error is one of {ON_ERROR}, got {on_error!r}')
        if resampling not in Resampling.__members__:
            raise ConfigError(f'resampling is one of {list(Resampling.__members__)}')
        given = list(paths) + [None] * (len(inputs) - len(paths))
        missing = [
            one.name
            for one, path in zip(inputs, given, strict=False)
            if path is None and not one.optional
        ]
        if missing or len(given) > len(inputs) or all(path is None for path in given):
            raise ConfigError(
                f'the model takes {len(inputs)} scene(s), {[one.name for one in inputs]}, got '
                f'{len([path for path in paths if path is not None])}'
            )
        self.paths = [None if path is None else str(path) for path in given]
        self.on_error, self.stretch = on_error, stretch
        self.unreadable: list[dict[str, Any]] = []
        self._known: set[tuple[int, int, int]] = set()
        self._joint = [one.name for one in inputs] == ['first', 'second']
        self._files: list[Any] = []
        self._stack: list[Any] = []
        first: Any = None
        for path in self.paths:
            file = None
            if path is not None:
                file = open_scene(path, first, Resampling[resampling], self._stack)
            first = first if first is not None else file
            self._files.append(file)
        self.height, self.width = first.height, first.width
        self.crs: CRS | None = first.crs
        self.transform: Affine = first.transform
        self.area = area
        self.file_bands = band_names or known_names
        self._choose(inputs, bands, band_names, known_names)
        rows = sum(
            _row_bytes(file, len(chosen))
            for file, chosen in zip(self._files, self._bands, strict=True)
            if file is not None
        )
        self._env = {
            'GDAL_ERROR_ON_LIBJPEG_WARNING': 'TRUE',
            'GDAL_DISABLE_READDIR_ON_OPEN': 'TRUE',
            # A row of tiles of a file in strips is decoded once.
            'GDAL_CACHEMAX': int(min(max(rows * 1024, _CACHE[0]), _CACHE[1])),
        }

    @property
    def georeferenced(self) -> bool:
        """Whether the grid has a CRS or a transform."""
        return self.crs is not None or not self.transform.is_identity

    @property
    def bands_used(self) -> list[dict[str, Any]]:
        """For each scene: its path, and numbers (from 1) and names of the bands that are read."""
        return [
            {
                'path': path,
                'bands': [position + 1 for position in chosen],
                'names': None if names is None else list(names),
            }
            for path, chosen, names in zip(self.paths, self._bands, self._names, strict=True)
            if path is not None
        ]

    def close(self) -> None:
        """Closes the files."""
        for file in reversed(self._stack):
            file.close()
        self._stack.clear()

    def __enter__(self) -> SceneSource:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def read(self, tile: Tile) -> TileInput:
        """Reads a tile.

        Args:
            tile: A window that begins inside the grid; what lies outside is padded with the
                mirrored image, and not valid.

        Returns:
            Its pixels; ``valid`` is where the area of interest is, and any scene has data (of two
            dates: both have).

        Raises:
            CorruptImageError: If it cannot be decoded, and the policy is ``'raise'``.
        """
        window = Window(
            tile.col,
            tile.row,
            min(tile.width, self.width - tile.col),
            min(tile.height, self.height - tile.row),
        )
        missing = (tile.height - window.height, tile.width - window.width)
        arrays: list[np.ndarray | None] = []
        masks: list[np.ndarray | None] = []
        with rasterio.Env(**self._env):
            for number, file in enumerate(self._files):
                if file is None:
                    arrays.append(None)
                    masks.append(None)
                    continue
                array, mask = self._read(number, file, window)
                arrays.append(np.pad(array, ((0, missing[0]), (0, missing[1]), (0, 0)), 'symmetric')
                              if any(missing) else array)  # fmt: skip
                masks.append(
                    np.pad(mask, ((0, missing[0]), (0, missing[1]))) if any(missing) else mask
                )
        data = [
            mask & self._with_data(number, array)
            for number, (array, mask) in enumerate(zip(arrays, masks, strict=True))
            if array is not None and mask is not None
        ]
        combine = np.logical_and if self._joint else np.logical_or
        valid = combine.reduce(data)
        if self.area is not None:
            valid &= self.area.mask(tile)
        return TileInput(
            tuple(arrays),
            valid,
            tile,
            tuple(self._names),
            tuple(self._nodata),
            tuple(None if mask is None or mask.all() else mask for mask in masks),
        )

    def _choose(
        self,
        inputs: Sequence[InputSpec],
        bands: Bands | Sequence[Bands | None] | None,
        band_names: Sequence[str] | None,
        known_names: Sequence[str] | None,
    ) -> None:
        """Finds the bands of every input."""
        counts = [_own(file).count for file in self._files if file is not None]
        if band_names is not None and len(band_names) not in counts:
            raise BandMismatchError(
                f'{counts[0]} band(s), but {len(band_names)} names were given: {list(band_names)}',
                path=self.paths[0],
            )
        several = (
            isinstance(bands, Sequence)
            and len(bands) == len(inputs)
            and all(one is None or isinstance(one, (list, tuple, Mapping)) for one in bands)
        )
        self._bands: list[list[int]] = []
        self._names: list[tuple[str, ...] | None] = []
        self._nodata: list[tuple[float | None, ...] | None] = []
        self._eight_bit = [one.eight_bit for one in inputs]
        for number, (spec, file) in enumerate(zip(inputs, self._files, strict=True)):
            if file is None:
                self._bands.append([])
                self._names.append(None)
                self._nodata.append(None)
                continue
            path = str(self.paths[number])
            own = _own(file)
            count = own.count
            chosen: Any = bands[number] if several else bands  # type: ignore[index,call-overload]
            names = _own_band_names(own)
            # What the file says of itself is truer than what those of the training were like; that
            # three bands are red, green and blue is what GDAL says of any.
            named = names is not None and all(own.descriptions)
            said = band_names if named else band_names or known_names
            stated = said if said is not None and len(said) == count else None
            found, known = choose_bands(spec, count, names, path, chosen, stated)
            kinds = {own.dtypes[position] for position in found}
            if any('complex' in kind for kind in kinds):
                raise BandMismatchError(
                    'complex values are no imagery that a model takes',
                    path=path,
                    hint='Convert it to intensity or amplitude first',
                )
            if spec.eight_bit and kinds != {'uint8'} and self.stretch is None:
                raise DataError(
                    f'holds {", ".join(sorted(kinds))}, and the model takes pictures of 8 bits',
                    path=path,
                    hint='Say which values become 0 and 255: stretch=(0, 3000), --stretch 0 3000',
                )
            self._bands.append(found)
            self._names.append(known)
            self._nodata.append(tuple(file.nodatavals[position] for position in found))

    def _read(self, number: int, file: Any, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """One input: (H, W, C), and (H, W) bool: what its mask band and its damage leave."""
        indexes = [position + 1 for position in self._bands[number]]
        try:
            array = file.read(indexes, window=window)
            mask = _file_mask(file, indexes, window)
        except RasterioError as error:
            if self.on_error == 'raise':
                raise CorruptImageError(
                    f'cannot be decoded at rows {window.row_off} to '
                    f'{window.row_off + window.height - 1}, columns {window.col_off} to '
                    f'{window.col_off + window.width - 1} ({innermost(error)})',
                    path=self.paths[number],
                    hint="on_error='skip' (--on-error skip) leaves such blocks as no data",
                ) from error
            array, mask = self._read_blocks(number, file, indexes, window)
        if self._eight_bit[number] and self.stretch is not None:
            mask = mask & self._stored_data(number, np.moveaxis(array, 0, 2))
            low, high = self.stretch
            scaled = (array.astype(np.float32) - low) * (255 / (high - low))
            array = np.clip(np.nan_to_num(np.rint(scaled)), 0, 255).astype(np.uint8)
        return array.transpose(1, 2, 0), mask

    def _read_blocks(
        self, number: int, file: Any, indexes: list[int], window: Window
    ) -> tuple[np.ndarray, np.ndarray]:
        """Block by block of the file, without those that cannot be decoded."""
        array = np.zeros((len(indexes), window.height, window.width), file.dtypes[indexes[0] - 1])
        mask = np.zeros((window.height, window.width), bool)
        rows, columns = file.block_shapes[indexes[0] - 1]
        for row in range(window.row_off // rows * rows, window.row_off + window.height, rows):
            left = window.col_off // columns * columns
            for column in range(left, window.col_off + window.width, columns):
                block = Window(column, row, columns, rows)
                if not intersect(block, window):
                    continue
                part = intersection(block, window)
                top, first = part.row_off - window.row_off, part.col_off - window.col_off
                here = (slice(top, top + part.height), slice(first, first + part.width))
                try:
                    array[(slice(None), *here)] = file.read(indexes, window=part)
                    mask[here] = _file_mask(file, indexes, part)
                except RasterioError as error:
                    self._note(number, file, row, column, rows, columns, error)
        return array, mask

    def _note(
        self, number: int, file: Any, row: int, col: int, rows: int, cols: int, error: Exception
    ) -> None:
        if (number, row, col) in self._known:
            return
        self._known.add((number, row, col))
        self.unreadable.append(
            {
                'path': self.paths[number],
                'row': row,
                'col': col,
                'height': min(rows, file.height - row),
                'width': min(cols, file.width - col),
                'reason': str(innermost(error)),
            }
        )

    def _with_data(self, number: int, array: np.ndarray) -> np.ndarray:
        """(H, W) bool: where any band has a value."""
        if self._eight_bit[number] and self.stretch is not None:
            return np.ones(array.shape[:2], bool)  # judged before the stretch
        return self._stored_data(number, array)

    def _stored_data(self, number: int, array: np.ndarray) -> np.ndarray:
        nodata = self._nodata[number] or ()
        floating = np.issubdtype(array.dtype, np.floating)
        if not floating and all(value is None for value in nodata):
            return np.ones(array.shape[:2], bool)
        found = np.zeros(array.shape[:2], bool)
        for band, value in enumerate(nodata):
            plane = array[..., band]
            good = np.isfinite(plane) if floating else np.ones(plane.shape, bool)
            if value is not None:
                good &= plane != value
            found |= good
        return found


def _own(file: Any) -> Any:
    """The file itself, where it is read through a reprojection."""
    return file.src_dataset if isinstance(file, WarpedVRT) else file


def _file_mask(file: Any, indexes: list[int], window: Window) -> np.ndarray:
    """What a mask band, or a band of opacity, says."""
    if isinstance(file, WarpedVRT) and file.count > file.src_dataset.count:
        # The band of opacity that was added; GDAL does not take it for a mask.
        return file.read(file.count, window=window) > 0
    flags = file.mask_flag_enums[indexes[0] - 1]
    if MaskFlags.per_dataset in flags:
        return file.dataset_mask(window=window) > 0
    return np.ones((window.height, window.width), bool)


def _row_bytes(file: Any, bands: int) -> int:
    return file.width * bands * np.dtype(file.dtypes[0]).itemsize
