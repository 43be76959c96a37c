# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The objects of a scene out of those of its tiles: every object once, also where tiles cut it.

1. What a border of its tile cuts, and another tile sees without a cut, is for that one to judge: it
   is dropped. With an overlap larger than an object this settles all cuts, whatever was found. What
   the other tile has not found is *unconfirmed*, and can be kept.
2. Two objects of different tiles are one if they agree where both tiles look: their intersection
   over union *inside the common window* is that of a duplicate (or, of whole ones, their
   intersection over the smaller area, where that is asked for). A piece that agrees with a whole
   object is dropped; of two whole ones the better scored stays, as in non-maximum suppression.
3. Pieces that agree, of an object larger than the overlap, are joined: its bounds, the rectangle of
   least area around them, or the union of their masks.

Objects of one tile are never compared: the suppression of the model has judged them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely import STRtree

from mmrsfm.apis.scene.objects import (
    SceneObjects,
    TileObjects,
    box_of,
    empty_objects,
    near_borders,
)
from mmrsfm.errors import ConfigError

MEASURES = ('iou', 'ios')
# Pieces are one object, or one of a whole one, from this agreement on. Not what the suppression of
# the model has: that of rotated boxes is often 0.1, and would join neighbours.
_SAME = 0.5
# Below this share of an object in the window of another tile, what that one saw was a piece of it.
_WHOLE = 0.8
# A dropped piece of which objects cover less than this share is none of them: the rectangle around
# a corner that is cut aslant is half of it empty.
_COVERED = 0.3


def merge_objects(
    parts: Sequence[TileObjects],
    iou_threshold: float = 0.5,
    class_agnostic: bool = False,
    keep_cut: bool = False,
    measure: str = 'iou',
) -> SceneObjects:
    """Merges the objects of overlapping tiles.

    Args:
        parts: Those of every tile that was predicted, in any order, also of those without objects:
            where a tile has looked and found nothing, pieces at the borders of others are dropped.
        iou_threshold: From which intersection over union (or what ``measure`` says) on two whole
            objects of different tiles are one; best that of the suppression of the model.
        class_agnostic: Objects of different classes may be one.
        keep_cut: Whether unconfirmed pieces stay, as objects that are ``cut``.
        measure: Of two whole objects: ``'iou'``, intersection over union, or ``'ios'``, over the
            smaller area, by which one that another tile sees smaller is a duplicate.

    Returns:
        The objects, the best score first; of equal scores the upper, then the left one. They do
        not depend on the order of the parts.

    Raises:
        ConfigError: If the parts are of different kinds, the threshold is not in (0, 1], or there
            is no such measure.
    """
    merged, unconfirmed = merge_tiles(parts, iou_threshold, class_agnostic, measure)
    return with_unconfirmed(merged, unconfirmed) if keep_cut else merged


def merge_tiles(
    parts: Sequence[TileObjects],
    iou_threshold: float = 0.5,
    class_agnostic: bool = False,
    measure: str = 'iou',
) -> tuple[SceneObjects, SceneObjects]:
    """Merges the objects of overlapping tiles, and returns what was dropped for want of a second.

    Args:
        parts: See :func:`merge_objects`.
        iou_threshold: Likewise.
        class_agnostic: Likewise.
        measure: Likewise.

    Returns:
        The objects; and the unconfirmed pieces: what a tile cuts, and another that sees it whole
        has not found, neither as such nor as an object of another class. Of several pieces of one
        place the best scored.

    Raises:
        ConfigError: See :func:`merge_objects`.
    """
    if not 0 < iou_threshold <= 1:
        raise ConfigError(f'the threshold of merging lies in (0, 1], not at {iou_threshold}')
    if measure not in MEASURES:
        raise ConfigError(f'the measure is one of {", ".join(MEASURES)}, not {measure!r}')
    parts = sorted(parts, key=lambda part: part.index)
    filled = [part for part in parts if len(part)]
    kinds = {part.kind for part in filled}
    if len(kinds) > 1:
        raise ConfigError(f'tiles have objects of different kinds: {", ".join(sorted(kinds))}')
    if not filled:
        nothing = empty_objects(parts[0].kind if parts else 'horizontal')
        return nothing, nothing
    pool = _Pool(parts, class_agnostic)
    judged = _judged_elsewhere(pool)
    alive = ~judged
    pairs, agreement, alike, reaches_out = _agreeing(pool, alive, iou_threshold, measure)
    piece = pool.touches.any(axis=1)
    # What another tile sees go on is a piece, even if it ends further from the border.
    goes_on = reaches_out & (agreement >= _SAME)[:, None]
    piece[pairs[goes_on[:, 0], 1]] = True
    piece[pairs[goes_on[:, 1], 0]] = True
    same = np.where(piece[pairs].any(axis=1), agreement >= _SAME, alike >= iou_threshold)
    pairs = pairs[same]
    mixed = piece[pairs[:, 0]] != piece[pairs[:, 1]]
    alive[np.where(piece[pairs[mixed, 0]], pairs[mixed, 0], pairs[mixed, 1])] = False
    kept = _suppress(pool, np.flatnonzero(alive & ~piece), pairs)
    merged = _ordered(pool.joined(kept, np.flatnonzero(alive & piece), pairs))
    return merged, _ordered(_unconfirmed(pool, np.flatnonzero(judged), merged))


def with_unconfirmed(merged: SceneObjects, unconfirmed: SceneObjects) -> SceneObjects:
    """Both of what :func:`merge_tiles` returns, in its order."""
    pairs = ((getattr(merged, one), getattr(unconfirmed, one)) for one in
             ('boxes', 'scores', 'labels', 'polygons', 'cut'))  # fmt: skip
    return _ordered(SceneObjects(merged.kind, *(np.concatenate(pair) for pair in pairs)))


class _Pool:
    """All objects of all tiles, side by side."""

    def __init__(self, parts: Sequence[TileObjects], class_agnostic: bool) -> None:
        self.parts = parts
        self.kind = next(part.kind for part in parts if len(part))
        filled = [part for part in parts if len(part)]
        self.tile = np.concatenate([np.full(len(p), n) for n, p in enumerate(parts)])
        self.windows = np.array([part.window for part in parts], np.float64)
        self.inner = np.array([part.inner for part in parts], bool)
        self.boxes = np.concatenate([part.boxes for part in filled])
        self.scores = np.concatenate([part.scores for part in filled])
        self.labels = np.concatenate([part.labels for part in filled])
        self.polygons = np.concatenate([part.polygons for part in filled])
        self.visible = np.concatenate([part.visible for part in filled])
        self.touches = np.concatenate([part.touches for part in filled])
        self.classes = np.zeros_like(self.labels) if class_agnostic else self.labels

    def joined(self, whole: np.ndarray, pieces: np.ndarray, pairs: np.ndarray) -> SceneObjects:
        """The whole objects as they are, and the pieces joined."""
        groups = _groups(pieces, self._partners(pieces, pairs))
        alone = np.array([group[0] for group in groups if len(group) == 1], np.int64)
        single = np.concatenate([whole, alone])
        joined = [group for group in groups if len(group) > 1]
        geometries = [self._union(group) for group in joined]
        polygons = np.empty(len(single) + len(joined), object)
        polygons[: len(single)] = self.polygons[single]
        polygons[len(single) :] = geometries
        added = polygons[len(single) :]
        boxes = box_of(added) if self.kind == 'rotated' else shapely.bounds(added).reshape(-1, 4)
        best = np.array([group[self.scores[group].argmax()] for group in joined], np.int64)
        cut = [
            self._still_cut(group, bounds)
            for group, bounds in zip(joined, shapely.bounds(added).reshape(-1, 4), strict=True)
        ]
        return SceneObjects(
            self.kind,
            np.concatenate([self.boxes[single], boxes]),
            self.scores[np.concatenate([single, best])],
            self.labels[np.concatenate([single, best])],
            polygons,
            np.concatenate([self.touches[single].any(axis=1), np.array(cut, bool)]),
        )

    def clipped(self, numbers: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """What of objects lies in windows, shapely geometries."""
        return shapely.intersection(self.polygons[numbers], shapely.box(*windows.T))

    def _union(self, group: np.ndarray) -> shapely.Geometry:
        windows = self.windows[self.tile[group]]
        # A rotated box of a piece reaches out of its tile, where nobody has looked.
        seen = self.clipped(group, windows)
        whole = shapely.union_all(seen)
        if self.kind == 'mask':
            return whole
        if self.kind == 'horizontal':
            return shapely.box(*whole.bounds)
        # The rectangle around a piece that is cut aslant holds more than the object: what one of
        # the tiles has looked at and left out is no part of it.
        left_out = shapely.difference(shapely.box(*windows.T), self.polygons[group])
        agreed = shapely.difference(whole, shapely.union_all(left_out))
        return shapely.minimum_rotated_rectangle(agreed if agreed.area > 0 else whole)

    def _still_cut(self, group: np.ndarray, bounds: np.ndarray) -> bool:
        beyond = (bounds - self.windows[self.tile[group]]) * [-1, -1, 1, 1] > 0
        return bool((self.touches[group] & ~beyond).any())

    def _partners(self, pieces: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Pairs of pieces, each the best scored of its tile for the other."""
        among = np.isin(pairs, pieces).all(axis=1)
        pairs = pairs[among]
        kept = np.ones(len(pairs), bool)
        for one, other in ((0, 1), (1, 0)):
            best: dict[tuple[int, int], int] = {}
            for number in np.lexsort((pairs[:, other], -self.scores[pairs[:, other]])):
                key = (int(pairs[number, one]), int(self.tile[pairs[number, other]]))
                kept[number] &= best.setdefault(key, int(number)) == number
        return pairs[kept]


def _judged_elsewhere(pool: _Pool) -> np.ndarray:
    """Objects that their tile cuts, and another one sees without a cut, bool (N,)."""
    out = np.zeros(len(pool.tile), bool)
    cut = np.flatnonzero(pool.touches.any(axis=1))
    tree = STRtree(shapely.box(*pool.windows.T))
    for tile in np.unique(pool.tile[cut]):
        here = cut[pool.tile[cut] == tile]
        for other in tree.query(shapely.box(*pool.windows[tile])):
            if other == tile:
                continue
            window = pool.windows[other]
            bounds = pool.visible[here]
            # Half a pixel: boxes are no whole numbers, the border of a scene is.
            inside = ((bounds - window) * [1, 1, -1, -1] >= -0.5).all(axis=1)
            near = near_borders(bounds, window, pool.inner[other]).any(axis=1)
            out[here[inside & ~near]] = True
    return out


def _unconfirmed(pool: _Pool, judged: np.ndarray, merged: SceneObjects) -> SceneObjects:
    """Judged pieces that are no part of what was found; each place once."""
    seen = pool.clipped(judged, pool.windows[pool.tile[judged]])
    areas = shapely.area(seen)

    def covered(others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = STRtree(others).query(seen)
        shared = shapely.area(shapely.intersection(seen[pairs[0]], others[pairs[1]]))
        return pairs, shared

    pairs, shared = covered(merged.polygons)
    free = np.ones(len(judged), bool)
    free[pairs[0, shared >= _COVERED * areas[pairs[0]]]] = False
    pairs, shared = covered(seen)
    pairs = pairs[:, shared >= _COVERED * areas[pairs].min(axis=0)]
    starts = np.searchsorted(pairs[0], np.arange(len(judged) + 1))
    kept = []
    for number in np.lexsort((judged, -pool.scores[judged])):
        if free[number]:
            kept.append(judged[number])
            free[pairs[1, starts[number] : starts[number + 1]]] = False
    chosen = np.array(sorted(kept), np.int64)
    return SceneObjects(
        pool.kind, pool.boxes[chosen], pool.scores[chosen], pool.labels[chosen],
        pool.polygons[chosen], np.ones(len(chosen), bool),
    )  # fmt: skip


def _agreeing(
    pool: _Pool, alive: np.ndarray, threshold: float, measure: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (M, 2) of objects that agree where both tiles look.

    Returns:
        The pairs; their agreement, as pieces (M,) and as whole ones (M,); which of the two goes
        on outside of the tile of the other, (M, 2).
    """
    numbers = np.flatnonzero(alive)
    bounds = shapely.box(*pool.visible[numbers].T)
    found = numbers[STRtree(bounds).query(bounds).T]
    found = found[found[:, 0] < found[:, 1]]
    of_tile, of_class = pool.tile[found], pool.classes[found]
    found = found[(of_tile[:, 0] != of_tile[:, 1]) & (of_class[:, 0] == of_class[:, 1])]
    windows = pool.windows[pool.tile[found]]
    common = np.hstack([windows[..., :2].max(axis=1), windows[..., 2:].min(axis=1)])
    looked = (common[:, 2:] > common[:, :2]).all(axis=1)
    found, common = found[looked], common[looked]
    parts = [pool.clipped(side, common) for side in found.T]
    areas = np.stack([shapely.area(part) for part in parts], axis=1)
    shared = shapely.area(shapely.intersection(*parts))
    agreement = shared / np.maximum(areas.sum(axis=1) - shared, 1e-9)
    alike = agreement if measure == 'iou' else shared / np.maximum(areas.min(axis=1), 1e-9)
    same = (agreement >= _SAME) | (alike >= threshold)
    pairs = found[same]
    seen = [shapely.area(pool.clipped(side, pool.windows[pool.tile[side]])) for side in pairs.T]
    goes_out = areas[same] < _WHOLE * np.stack(seen, axis=1)
    return pairs, agreement[same], alike[same], goes_out


def _suppress(pool: _Pool, whole: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Of whole objects that are one, the best scored; of equal ones that farthest from a border."""
    pairs = pairs[np.isin(pairs, whole).all(axis=1)]
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind='stable')]
    starts = np.searchsorted(both[:, 0], np.arange(len(pool.tile) + 1))
    window = pool.windows[pool.tile]
    depth = np.where(
        pool.inner[pool.tile], (pool.visible - window) * [1, 1, -1, -1], np.inf
    ).min(axis=1)  # fmt: skip
    dropped = np.zeros(len(pool.tile), bool)
    order = whole[np.lexsort((whole, -depth[whole], -pool.scores[whole]))]
    for number in order:
        if not dropped[number]:
            dropped[both[starts[number] : starts[number + 1], 1]] = True
    return whole[~dropped[whole]]


def _groups(pieces: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Pieces that pairs connect, each group ascending."""
    if not len(pieces):
        return []
    place = np.searchsorted(pieces, pairs)
    graph = coo_array(
        (np.ones(len(pairs), bool), (place[:, 0], place[:, 1])), (len(pieces), len(pieces))
    )
    count, names = connected_components(graph, directed=False)
    order = np.argsort(names, kind='stable')
    return np.split(pieces[order], np.searchsorted(names[order], np.arange(1, count)))


def _ordered(objects: SceneObjects) -> SceneObjects:
    bounds = shapely.bounds(objects.polygons).reshape(-1, 4)
    return objects[np.lexsort((bounds[:, 0], bounds[:, 1], -objects.scores))]
