# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of objects: horizontal and rotated boxes, and masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from mmrsfm.errors import ConfigError


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """The corners of boxes of any kind, float (N, 4, 2), x and y.

    Args:
        boxes: (N, 4): x1, y1, x2, y2; (N, 5): centre, sides and angle in radians, clockwise on the
            screen, as in mmrotate; (N, 8): four corners.

    Raises:
        ConfigError: If they are of another form.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5, 8):
        raise ConfigError(f'boxes have 4, 5 or 8 numbers each, got an array of {boxes.shape}')
    if boxes.shape[1] == 8:
        return boxes.reshape(-1, 4, 2)
    if boxes.shape[1] == 4:
        return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    cosine, sine = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along = np.stack([cosine, sine], axis=1) * boxes[:, 2:3] / 2
    across = np.stack([-sine, cosine], axis=1) * boxes[:, 3:4] / 2
    centre = boxes[:, :2]
    corners = [centre - along - across, centre + along - across]
    return np.stack([*corners, centre + along + across, centre - along + across], axis=1)


def draw_boxes(
    picture: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    palette: Sequence[Sequence[int]],
    thickness: int = 1,
) -> np.ndarray:
    """Draws the outlines of boxes.

    Args:
        picture: uint8 (H, W, 3).
        boxes: See :func:`box_corners`; they may reach beyond the picture.
        labels: Class of each.
        palette: Colour of each class; classes without one are white.
        thickness: Of the lines in pixels.

    Returns:
        A new picture.
    """
    picture = np.ascontiguousarray(picture).copy()
    # Edges of pixels to centres, in sixteenths, which OpenCV draws to.
    points = np.rint((box_corners(boxes) - 0.5) * 16).astype(np.int32)
    for corners, label in zip(points, labels, strict=True):
        colour = _colour(label, palette)
        cv2.polylines(picture, [corners], True, colour, thickness, cv2.LINE_AA, shift=4)
    return picture


def draw_polygons(
    picture: np.ndarray,
    polygons: Iterable[Any],
    labels: Sequence[int],
    palette: Sequence[Sequence[int]],
    scale: float = 1.0,
    thickness: int = 1,
) -> np.ndarray:
    """Draws the outlines of polygons.

    Args:
        picture: uint8 (H, W, 3).
        polygons: Shapely polygons and multipolygons; their holes have outlines too.
        labels: Class of each.
        palette: Colour of each class; classes without one are white.
        scale: Pixels of the picture that a unit of the polygons is wide.
        thickness: Of the lines in pixels.

    Returns:
        A new picture.
    """
    picture = np.ascontiguousarray(picture).copy()
    for polygon, label in zip(polygons, labels, strict=True):
        for part in getattr(polygon, 'geoms', [polygon]):
            rings = [np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)]
            points = [np.rint((ring * scale - 0.5) * 16).astype(np.int32) for ring in rings]
            colour = _colour(int(label), palette)
            cv2.polylines(picture, points, True, colour, thickness, cv2.LINE_AA, shift=4)
    return picture


def draw_masks(
    picture: np.ndarray,
    masks: Iterable[np.ndarray],
    labels: Sequence[int],
    palette: Sequence[Sequence[int]],
    opacity: float = 0.45,
) -> np.ndarray:
    """Tints the pixels of masks.

    Args:
        picture: uint8 (H, W, 3).
        masks: (H, W) each, not 0 where the object is.
        labels: Class of each.
        palette: Colour of each class; classes without one are white.
        opacity: Of the colour, in [0, 1].

    Returns:
        A new picture.
    """
    out = picture.astype(np.float32)
    for mask, label in zip(masks, labels, strict=True):
        inside = np.asarray(mask) > 0
        tint = np.asarray(_colour(label, palette), np.float32)
        out[inside] = picture[inside] * (1 - opacity) + tint * opacity
    return out.round().astype(np.uint8)


def draw_sample_objects(
    sample: dict[str, Any],
    picture: np.ndarray,
    palette: Sequence[Sequence[int]],
    opacity: float = 0.45,
    together: bool = False,
) -> list[tuple[str, np.ndarray]]:
    """Pictures of the objects of a sample of a data pipeline, one for each kind that it has.

    Args:
        sample: With ``gt_bboxes`` (boxes of mmdet or mmrotate) and, where present, ``gt_masks``;
            ``gt_rboxes`` (:mod:`mmrsfm.datasets.multi_task.alignment`); and their labels.
        picture: uint8 (H, W, 3), of the image of the sample.
        palette: Colour of each class.
        opacity: Of the masks.
        together: Draw each kind over the one before: the last picture has all of them.

    Returns:
        A title and a picture of each kind.
    """
    kinds: list[tuple[str, np.ndarray]] = []
    for title, boxes_key, labels_key, masks_key in (
        ('instances', 'gt_bboxes', 'gt_bboxes_labels', 'gt_masks'),
        ('rotated boxes', 'gt_rboxes', 'gt_rboxes_labels', ''),
    ):
        if sample.get(boxes_key) is None:
            continue
        boxes, labels = sample[boxes_key], np.asarray(sample[labels_key]).tolist()
        array = np.asarray(getattr(boxes, 'tensor', boxes))
        drawn = kinds[-1][1] if together and kinds else picture
        masks = sample.get(masks_key)
        if masks is not None:
            # One at a time where they are kept small: all of a large tile would not fit.
            arrays = masks.arrays() if hasattr(masks, 'arrays') else masks.to_ndarray()
            drawn = draw_masks(drawn, arrays, labels, palette, opacity)
        if len(array):
            drawn = draw_boxes(drawn, array, labels, palette)
        kinds.append((f'{title}: {len(array)}', drawn))
    return kinds


def _colour(label: int, palette: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    if not 0 <= label < len(palette):
        return 255, 255, 255
    red, green, blue = (int(part) for part in palette[label])
    return red, green, blue
