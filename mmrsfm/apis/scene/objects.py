# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Objects that a detector finds in one tile of a scene, and those of the whole scene.

Places are pixels of the scene: x to the right, y down, (0, 0) the outer corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
import torch
from rasterio.features import shapes
from shapely.geometry import MultiPolygon, Polygon, shape

from mmrsfm.apis.scene.grid import Tile
from mmrsfm.errors import ConfigError
from mmrsfm.visualization.objects import box_corners

KINDS = ('horizontal', 'rotated', 'mask')
# A box that ends this near a border of its tile is taken to be cut there: detectors do not stop at
# the very edge, and the larger the object the further away they may end.
MARGIN = 3.0
_SLACK = 0.05


@dataclass(frozen=True, eq=False)
class SceneObjects:
    """Objects in pixels of a scene.

    Attributes:
        kind: ``'horizontal'``, ``'rotated'`` or ``'mask'``.
        boxes: float64 (N, 4): left, top, right, bottom; of the kind ``'rotated'`` (N, 5): centre,
            sides and angle in radians, clockwise on the screen.
        scores: float32 (N,), in [0, 1].
        labels: int64 (N,), numbers of the classes.
        polygons: Outlines, shapely polygons (N,); of masks also multipolygons, along the edges of
            pixels, with holes.
        cut: bool (N,): the border of a tile cuts the object, and no other tile goes on with it.
    """

    kind: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    polygons: np.ndarray
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Any) -> SceneObjects:
        """Objects by an index array, a boolean array or a slice."""
        return SceneObjects(
            self.kind, self.boxes[chosen], self.scores[chosen], self.labels[chosen],
            self.polygons[chosen], self.cut[chosen],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TileObjects:
    """Objects of one tile, in pixels of the scene.

    Attributes:
        index: Number of the tile.
        window: Left, top, right and bottom end of the tile, as far as it lies in the scene.
        inner: bool (4,): which of these four borders are not borders of the scene.
        kind: See :class:`SceneObjects`.
        boxes: See :class:`SceneObjects`.
        scores: See :class:`SceneObjects`.
        labels: See :class:`SceneObjects`.
        polygons: See :class:`SceneObjects`.
    """

    index: int
    window: tuple[int, int, int, int]
    inner: np.ndarray
    kind: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    polygons: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def touches(self) -> np.ndarray:
        """The inner borders left, top, right and bottom that cut each object, bool (N, 4)."""
        return near_borders(self.visible, self.window, self.inner)

    @property
    def visible(self) -> np.ndarray:
        """Bounds of what of each object lies in the tile, float64 (N, 4)."""
        bounds = shapely.bounds(self.polygons).reshape(-1, 4)
        left, top, right, bottom = self.window
        return np.clip(bounds, [left, top] * 2, [right, bottom] * 2)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays without Python objects, for ``numpy.savez``; see :meth:`from_arrays`."""
        texts = [shapely.to_wkb(one) for one in self.polygons]
        return {
            'index': np.array(self.index), 'window': np.array(self.window), 'inner': self.inner,
            'kind': np.array(KINDS.index(self.kind)), 'boxes': self.boxes, 'scores': self.scores,
            'labels': self.labels, 'lengths': np.array([len(one) for one in texts], np.int64),
            'outlines': np.frombuffer(b''.join(texts), np.uint8),
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> TileObjects:
        """Makes the objects of what :meth:`to_arrays` gave."""
        content = np.asarray(arrays['outlines']).tobytes()
        ends = np.cumsum(arrays['lengths'])
        starts = ends - arrays['lengths']
        texts = [content[a:b] for a, b in zip(starts, ends, strict=True)]
        left, top, right, bottom = (int(value) for value in arrays['window'])
        return cls(
            int(arrays['index']), (left, top, right, bottom), np.asarray(arrays['inner']),
            KINDS[int(arrays['kind'])], np.asarray(arrays['boxes']), np.asarray(arrays['scores']),
            np.asarray(arrays['labels']), _geometries(shapely.from_wkb(texts) if texts else []),
        )  # fmt: skip


def near_borders(
    bounds: np.ndarray, window: Sequence[float], inner: np.ndarray, margin: float = MARGIN
) -> np.ndarray:
    """Which inner borders of a tile cut objects.

    Args:
        bounds: (N, 4), left, top, right and bottom of each object.
        window: Those of the tile.
        inner: bool (4,): the borders that count.
        margin: How near an object ends, in pixels; more where the object is large.

    Returns:
        bool (N, 4).
    """
    sides = np.tile(bounds[:, 2:] - bounds[:, :2], 2)
    reach = np.maximum(margin, _SLACK * sides)
    distance = (bounds - np.asarray(window, np.float64)) * [1, 1, -1, -1]
    return (distance <= reach) & np.asarray(inner, bool)


def empty_objects(kind: str = 'horizontal') -> SceneObjects:
    """No objects.

    Args:
        kind: See :class:`SceneObjects`.
    """
    return SceneObjects(
        kind, np.zeros((0, 5 if kind == 'rotated' else 4)), np.zeros(0, np.float32),
        np.zeros(0, np.int64), _geometries([]), np.zeros(0, bool),
    )  # fmt: skip


def tile_objects(
    instances: Any, tile: Tile, scene_size: tuple[int, int], min_score: float = 0.0
) -> TileObjects:
    """Takes the predictions of a tile to the scene.

    Args:
        instances: mmdet's or mmrotate's, in pixels of the tile: ``bboxes`` (N, 4), (N, 5) in
            radians or (N, 8), as tensors or box structures; ``scores``; ``labels``; where there are
            ``masks`` (N, H, W), they are the objects.
        tile: Its place.
        scene_size: Height and width of the scene.
        min_score: What scores less is left out.

    Returns:
        The objects; boxes that have no area in the scene, and masks without a pixel, are left out.

    Raises:
        ConfigError: If the boxes are of another form.
    """
    boxes = _array(instances.bboxes).astype(np.float64)
    scores, labels = _array(instances.scores), _array(instances.labels)
    masks = instances.masks if 'masks' in instances else None
    height, columns = scene_size
    end = (min(tile.col + tile.width, columns), min(tile.row + tile.height, height))
    window = (tile.col, tile.row, *end)
    inner = np.array(window) != [0, 0, columns, height]
    width = boxes.shape[-1]
    if width not in (4, 5, 8):
        raise ConfigError(f'boxes have 4, 5 or 8 numbers each, got an array of {boxes.shape}')
    kind = 'mask' if masks is not None else 'horizontal' if width == 4 else 'rotated'
    good = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (scores >= min_score)
    boxes = boxes.reshape(-1, width)
    chosen = np.flatnonzero(good)
    boxes, scores, labels = boxes[chosen], scores[chosen], labels[chosen]
    offset = np.array([tile.col, tile.row], np.float64)
    if masks is not None:
        extent = (end[0] - tile.col, end[1] - tile.row)
        found = [mask_polygon(_mask_of(masks, number), extent) for number in chosen]
        polygons = shapely.transform(_geometries(found), lambda points: points + offset)
        boxes = shapely.bounds(polygons).reshape(-1, 4)
    elif kind == 'horizontal':
        boxes = np.clip(boxes + np.tile(offset, 2), np.tile(offset, 2), np.tile(end, 2))
        polygons = shapely.box(*boxes.T) if len(boxes) else _geometries([])
    else:
        polygons = corners_to_polygons(box_corners(boxes) + offset)
        boxes = box_of(polygons) if width == 8 else np.hstack([boxes[:, :2] + offset, boxes[:, 2:]])
    # Rotated boxes may reach out of the tile; their place is decided by what is inside.
    inside = shapely.intersection(polygons, shapely.box(*offset, *end)) if len(boxes) else polygons
    kept = np.flatnonzero(shapely.area(inside) > 0)
    return TileObjects(
        tile.index, window, inner, kind, boxes[kept], scores[kept].astype(np.float32),
        labels[kept].astype(np.int64), _geometries(polygons[kept]),
    )  # fmt: skip


def mask_polygon(mask: np.ndarray, extent: tuple[int, int] | None = None) -> Polygon | MultiPolygon:
    """The outline of a mask, along the edges of its pixels.

    Args:
        mask: (H, W), not 0 where the object is.
        extent: Width and height of what counts of it; all by default.

    Returns:
        A polygon with holes, or several of them; without pixels an empty one. Pixels that meet at
        a corner only are parts of their own, so that it is always valid.
    """
    if extent is not None:
        mask = mask[: extent[1], : extent[0]]
    # The box of the object, found by rows and columns: a tile has hundreds of masks.
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Polygon()
    top, left = rows[0], columns[0]
    crop = np.ascontiguousarray(mask[top : rows[-1] + 1, left : columns[-1] + 1]).astype(np.uint8)
    parts = [shape(geometry) for geometry, _ in shapes(crop, mask=crop > 0, connectivity=4)]
    whole = parts[0] if len(parts) == 1 else MultiPolygon(parts)
    return shapely.transform(whole, lambda points: points + np.array([left, top]))


def corners_to_polygons(corners: np.ndarray) -> np.ndarray:
    """Shapely polygons (N,) of corners (N, 4, 2)."""
    return shapely.polygons(corners) if len(corners) else _geometries([])


def box_of(polygons: np.ndarray) -> np.ndarray:
    """Rotated boxes of least area around polygons.

    Args:
        polygons: Shapely geometries with area, (N,).

    Returns:
        float64 (N, 5): centre, longer side, shorter side, angle of the longer one in
        [-pi/2, pi/2), clockwise on the screen (``le90`` of mmrotate).
    """
    boxes = np.zeros((len(polygons), 5))
    for number, rectangle in enumerate(shapely.minimum_rotated_rectangle(polygons)):
        points = shapely.get_coordinates(rectangle)[:4]
        first, second = points[1] - points[0], points[2] - points[1]
        if np.hypot(*second) > np.hypot(*first):
            first, second = second, first
        angle = (np.arctan2(first[1], first[0]) + np.pi / 2) % np.pi - np.pi / 2
        boxes[number] = (*points.mean(axis=0), np.hypot(*first), np.hypot(*second), angle)
    return boxes


def _geometries(found: Any) -> np.ndarray:
    array = np.empty(len(found), object)
    array[:] = found
    return array


def _array(values: Any) -> np.ndarray:
    values = getattr(values, 'tensor', values)
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _mask_of(masks: Any, number: int) -> np.ndarray:
    if hasattr(masks, 'to_ndarray'):  # mmdet's structures
        masks = masks.masks
    return _array(masks[number]) > 0
