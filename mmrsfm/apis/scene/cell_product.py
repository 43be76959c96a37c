# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Classes of the cells of a scene: a grid of polygons, one for each tile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from mmrsfm.apis.scene.journal import Journal
from mmrsfm.apis.scene.objects import SceneObjects
from mmrsfm.apis.scene.products import RowProduct, Stream
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.apis.scene.stream import Times
from mmrsfm.errors import ConfigError
from mmrsfm.utils.vector_writing import write_geojson, write_geopackage

_FORMATS = {'gpkg': '{}.gpkg', 'geojson': '{}.geojson'}


class CellProduct(RowProduct):
    """A GeoPackage (and GeoJSON) of cells with class, score, and the scores of all classes.

    Cells are as far apart as tiles are, ``tile_size - overlap``; with an overlap each is the middle
    of its tile, and the model sees more than it. Cells without data are left out; ``valid`` is the
    share of a cell's tile that has data. With several labels at once (multi-label models) ``class``
    names all with a score above a half, separated by commas.

    Args:
        model: The model.
        source: The scene.
        overlap: Pixels that tiles share.
        formats: Of ``'gpkg'``, ``'geojson'``; ``None``: both.

    Raises:
        ConfigError: For an unknown format.
    """

    def __init__(
        self, model: Any, source: SceneSource, overlap: int, formats: Sequence[str] | None = None
    ) -> None:
        super().__init__(model, source, overlap)
        self.formats = [one for one in formats or _FORMATS if one != 'dota']
        if not self.formats:
            raise ConfigError(f'cells are written as {list(_FORMATS)}, not as DOTA text')
        if unknown := sorted(set(self.formats) - set(_FORMATS)):
            raise ConfigError(f'cells are written as {list(_FORMATS)}, not as {unknown}')
        self.settings = {'formats': self.formats}

    def compute(self, unit: int, stream: Stream, times: Times) -> dict[str, np.ndarray]:
        """Collects a row of cells; see :class:`Product`."""
        found = [
            (number, item.valid.mean(), prediction.scores)
            for number, (item, prediction) in enumerate(self.next_row(stream))
            if prediction is not None and prediction.scores is not None
        ]
        wrong = [bool(scores.isnan().any()) for _, _, scores in found]
        if any(wrong):
            self.notes.append({'unit': unit, 'not_a_number': sum(wrong)})
            found = [one for one, bad in zip(found, wrong, strict=True) if not bad]
        return {
            'columns': np.array([number for number, _, _ in found], np.int64),
            'valid': np.array([share for _, share, _ in found], np.float64),
            'scores': np.array([scores.numpy() for _, _, scores in found], np.float32),
        }

    def files(self, out: Path, stem: str) -> dict[str, Path]:
        """See :class:`Product`."""
        return {name: out / _FORMATS[name].format(stem) for name in self.formats}

    def write(self, journal: Journal, out: Path, stem: str) -> dict[str, Path]:
        """Writes the cells; see :class:`Product`."""
        cells, shares, scores = [], [], []
        for unit in self.units:
            arrays = journal.read(unit)
            for column, share, row in zip(*arrays.values(), strict=True):
                cells.append(self._cell(unit, int(column)))
                shares.append(float(share))
                scores.append(row)
        count = len(scores[0]) if scores else len(self.model.classes or ())
        values = np.array(scores, np.float64).reshape(len(cells), count)
        self.names += [f'class_{number}' for number in range(len(self.names), count)]
        names = self.names
        labels = values.argmax(1) if count and len(cells) else np.zeros(len(cells), np.int64)
        best = values[np.arange(len(cells)), labels]
        polygons = np.empty(len(cells), object)
        polygons[:] = cells
        fields = {
            'class': np.array(self._said(values, labels, names), object),
            'score': best.round(6),
            'valid': np.array(shares).round(4),
            **{f'score_{name}': values[:, n].round(6) for n, name in enumerate(names)},
        }
        files = self.files(out, stem)
        crs, transform = self.source.crs, self.source.transform
        note = {'model': Path(self.model.checkpoint).name}
        if 'gpkg' in files:
            write_geopackage(
                files['gpkg'], polygons, fields, crs, transform, 'cells', description=note
            )
        if 'geojson' in files:
            write_geojson(files['geojson'], polygons, fields, crs, transform, note)
        self.objects = SceneObjects(
            'horizontal', shapely.bounds(polygons).reshape(-1, 4), best.astype(np.float32), labels,
            polygons, np.zeros(len(cells), bool),
        )  # fmt: skip
        counts = np.bincount(labels, minlength=count).tolist()
        self.info = {
            'cells': len(cells),
            'cells_by_class': dict(zip(names, counts, strict=True)),
        }
        return files

    def _said(self, values: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[str]:
        if self.model.multi_label:
            return [
                ','.join(name for name, value in zip(names, row, strict=True) if value > 0.5)
                for row in values
            ]
        return [names[int(label)] for label in labels]

    def _cell(self, row: int, column: int) -> shapely.Polygon:
        """The ground between the middles of the overlaps with the neighbours, in the scene."""
        top, bottom = self._edges(self.grid.rows, row, self.source.height)
        left, right = self._edges(self.grid.cols, column, self.source.width)
        return shapely.box(left, top, right, bottom)

    def _edges(self, starts: Sequence[int], number: int, end: int) -> tuple[float, float]:
        size = self.grid.tile_size
        first, last = float(starts[number]), float(min(starts[number] + size, end))
        if number > 0:
            first = (starts[number] + starts[number - 1] + size) / 2
        if number + 1 < len(starts):
            last = (starts[number + 1] + starts[number] + size) / 2
        return first, last
