# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GeoTIFFs that are written part by part, and appear when they are complete."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from mmrsfm.apis.scene.area import Region


@dataclass
class MapLayout:
    """What a map is written as.

    Attributes:
        height: Rows.
        width: Columns.
        bands: Bands.
        dtype: NumPy's name of their type.
        nodata: Value of pixels without a result.
        crs: CRS; ``None``: none.
        transform: From (column, row) to (x, y).
        block: Side of the tiles in the file.
        descriptions: Names of the bands.
        colours: A colour (red, green, blue, 0 to 255) for each class.
        tags: Tags of the file.
    """

    height: int
    width: int
    bands: int
    dtype: str
    nodata: float | None
    crs: CRS | None
    transform: Affine
    block: int = 256
    descriptions: Sequence[str] | None = None
    colours: Sequence[Sequence[int]] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the values, before compression."""
        return self.height * self.width * self.bands * np.dtype(self.dtype).itemsize


def write_map(
    path: str | Path, layout: MapLayout, parts: Iterable[tuple[Region, np.ndarray]]
) -> Path:
    """Writes a map: tiled, compressed without loss, as a BigTIFF where it may pass 4 GB.

    Args:
        path: The file; it appears only when it is complete.
        layout: What it is.
        parts: Places and values, (h, w) or (bands, h, w); together they cover the map. Each tile
            of the file should lie in one part.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    predictor = 3 if layout.dtype.startswith('float') else 2
    options: dict[str, Any] = {
        'driver': 'GTiff', 'count': layout.bands, 'dtype': layout.dtype, 'height': layout.height,
        'width': layout.width, 'crs': layout.crs, 'transform': layout.transform,
        'nodata': layout.nodata, 'compress': 'deflate', 'predictor': predictor, 'tiled': True,
        'blockxsize': layout.block, 'blockysize': layout.block, 'BIGTIFF': 'IF_SAFER',
        'interleave': 'band',
    }  # fmt: skip
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=128 << 20):
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            with rasterio.open(partial, 'w', **options) as out:
                if layout.colours is not None and layout.dtype in ('uint8', 'uint16'):
                    table = {n: (*colour, 255) for n, colour in enumerate(layout.colours)}
                    if layout.nodata is not None:
                        table[int(layout.nodata)] = (0, 0, 0, 0)
                    out.write_colormap(1, table)
                for number, name in enumerate(layout.descriptions or (), 1):
                    out.set_band_description(number, name)
                out.update_tags(**layout.tags)
                for region, values in parts:
                    values = values if values.ndim == 3 else values[None]
                    out.write(
                        values, window=Window(region.col, region.row, region.width, region.height)
                    )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
