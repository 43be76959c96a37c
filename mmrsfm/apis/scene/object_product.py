# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Objects of a scene: found in rows of tiles, merged when all rows are there."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from mmengine.logging import print_log

from mmrsfm.apis.scene.journal import Journal
from mmrsfm.apis.scene.merging import MEASURES, merge_tiles, with_unconfirmed
from mmrsfm.apis.scene.object_files import OBJECT_FILES, write_objects
from mmrsfm.apis.scene.objects import SceneObjects, TileObjects, tile_objects
from mmrsfm.apis.scene.products import RowProduct, Stream
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.apis.scene.stream import Times
from mmrsfm.apis.scene.tile_data import TileInput
from mmrsfm.errors import ConfigError
from mmrsfm.version import __version__

# Objects of which the scene has less than this share are no objects of it.
_SEEN = 0.5


class ObjectProduct(RowProduct):
    """GeoJSON, GeoPackage and DOTA's text of objects.

    Args:
        model: The model.
        source: The scene.
        overlap: Pixels that tiles share; more than objects are large, best.
        min_score: The least score.
        formats: Of ``'geojson'``, ``'gpkg'`` and ``'dota'``; ``None``: all.
        keep_cut: See :func:`mmrsfm.apis.scene.merging.merge_objects`.
        measure: Likewise: ``'iou'`` with the threshold of the model, or ``'ios'`` with 0.5.

    Raises:
        ConfigError: If there is no such format or measure, or the model names no classes.
    """

    def __init__(
        self,
        model: Any,
        source: SceneSource,
        overlap: int,
        min_score: float = 0.3,
        formats: Sequence[str] | None = None,
        keep_cut: bool = False,
        measure: str = 'iou',
    ) -> None:
        super().__init__(model, source, overlap)
        self.formats = tuple(OBJECT_FILES if formats is None else formats)
        if unknown := sorted(set(self.formats) - set(OBJECT_FILES)):
            raise ConfigError(
                f'objects are written as {", ".join(OBJECT_FILES)}, not as {unknown[0]}'
            )
        if model.classes is None:
            raise ConfigError('the config names no classes: metainfo=dict(classes=(...))')
        self.min_score = min_score
        self.keep_cut = keep_cut
        if measure not in MEASURES:
            raise ConfigError(f'objects are merged by {", ".join(MEASURES)}, not by {measure!r}')
        self.measure = measure
        # That of the model is one of intersection over union.
        self.threshold = suppression_threshold(model) if measure == 'iou' else 0.5
        self.objects: SceneObjects | None = None
        self.settings = {
            'min_score': min_score, 'formats': list(self.formats), 'keep_cut': keep_cut,
            'measure': measure,
        }  # fmt: skip
        if overlap == 0 and len(self.grid) > 1:
            _warn(
                'tiles without an overlap: objects that their borders cut stay in pieces; an '
                'overlap (--overlap) larger than the objects makes them whole'
            )

    def compute(self, unit: int, stream: Stream, times: Times) -> dict[str, np.ndarray]:
        """The objects of a row of tiles; see :class:`mmrsfm.apis.scene.products.Product`."""
        arrays = {}
        for item, prediction in self.next_row(stream):
            if prediction is None:
                continue  # nothing was looked at: it has no say in what others see
            start = time.perf_counter()
            instances = prediction.instances
            size = (self.source.height, self.source.width)
            found = tile_objects(instances, item.tile, size, self.min_score)
            found = _with_data(found, item, self.source.area is not None)
            for name, values in found.to_arrays().items():
                arrays[f'{item.tile.index}/{name}'] = values
            times.writing += time.perf_counter() - start
        return arrays

    def files(self, out: Path, stem: str) -> dict[str, Path]:
        """See :class:`mmrsfm.apis.scene.products.Product`."""
        return {name: out / OBJECT_FILES[name].format(stem) for name in self.formats}

    def write(self, journal: Journal, out: Path, stem: str) -> dict[str, Path]:
        """See :class:`mmrsfm.apis.scene.products.Product`."""
        parts = []
        for unit in self.units:
            tiles: dict[str, dict[str, np.ndarray]] = {}
            for key, values in journal.read(unit).items():
                index, name = key.split('/')
                tiles.setdefault(index, {})[name] = values
            parts += [TileObjects.from_arrays(arrays) for arrays in tiles.values()]
        merged, unconfirmed = merge_tiles(parts, self.threshold, measure=self.measure)
        unconfirmed = unconfirmed[self._wanted(unconfirmed)]
        if self.keep_cut:
            merged = with_unconfirmed(merged, unconfirmed)
        self.objects = objects = merged[self._wanted(merged)]
        counts = np.bincount(objects.labels, minlength=len(self.model.classes))
        self.info = {
            'objects': len(objects),
            'objects_by_class': dict(zip(self.model.classes, counts.tolist(), strict=True)),
            'cut_objects': int(objects.cut.sum()),
            'unconfirmed_pieces': len(unconfirmed),
            'found_in_tiles': sum(len(part) for part in parts),
        }
        self._tell(len(unconfirmed))
        write_objects(
            out, stem, objects, self.model.classes, self.source.crs, self.source.transform,
            self.formats,
            description={
                'software': f'mmrsfm {__version__}', 'task': self.model.task,
                'checkpoint': Path(self.model.checkpoint).name,
            },
        )  # fmt: skip
        return self.files(out, stem)

    def _tell(self, unconfirmed: int) -> None:
        info = self.info
        cut = info['cut_objects'] - (unconfirmed if self.keep_cut else 0)
        if cut > 0.05 * info['objects'] and self.grid.overlap:
            _warn(
                f'{cut} of {info["objects"]} objects are cut by the borders of tiles, and no other '
                f'tile goes on with them: an overlap (--overlap, now {self.grid.overlap}) larger '
                'than the objects makes them whole'
            )
        if unconfirmed and not self.keep_cut:
            print_log(
                f'{unconfirmed} pieces at borders of tiles were left out, as the tiles that see '
                'them whole found nothing there (--keep-cut keeps them)', logger='current',
            )  # fmt: skip

    def _wanted(self, objects: SceneObjects) -> np.ndarray:
        """Which objects have their centre in the area of interest."""
        area = self.source.area
        if area is None or not len(objects):
            return np.arange(len(objects))
        bounds = shapely.bounds(objects.polygons)
        centres = shapely.points((bounds[:, :2] + bounds[:, 2:]) / 2)
        region = area.region
        wanted = [
            shapely.box(
                region.col, region.row, region.col + region.width, region.row + region.height
            )
        ] if area.polygons is None else area.polygons  # fmt: skip
        return np.flatnonzero(shapely.intersects(shapely.union_all(wanted), centres))


def suppression_threshold(model: Any) -> float:
    """The intersection over union from which on the detector takes two boxes for one.

    Args:
        model: A :class:`mmrsfm.apis.scene.model.SceneModel`.

    Returns:
        That of its last stage; 0.5 where it has none.
    """
    config = getattr(model, 'cfg', None) or {}
    test_cfg = (config.get('model') or {}).get('test_cfg') or {}
    stage = test_cfg.get('rcnn') or test_cfg
    stage = stage[-1] if isinstance(stage, (list, tuple)) else stage
    value = (stage.get('nms') or {}).get('iou_threshold')
    return 0.5 if value is None else float(value)


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _with_data(found: TileObjects, item: TileInput, has_area: bool) -> TileObjects:
    """Leaves out objects of padding and of pixels without data."""
    valid = item.valid
    if has_area:  # what lies outside of the area has data all the same
        masks = [one for one in item.masks or () if one is not None]
        valid = np.logical_and.reduce(masks) if masks else np.ones_like(valid)
    if not len(found) or valid.all():
        return found
    sums = np.pad(valid.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
    bounds = found.visible - np.tile(found.window[:2], 2)
    left, top = np.floor(bounds[:, :2]).astype(int).T
    right, bottom = np.ceil(bounds[:, 2:]).astype(int).T
    counts = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    kept = counts >= _SEEN * (bottom - top) * (right - left)
    return TileObjects(
        found.index, found.window, found.inner, found.kind, found.boxes[kept], found.scores[kept],
        found.labels[kept], found.polygons[kept],
    )  # fmt: skip
