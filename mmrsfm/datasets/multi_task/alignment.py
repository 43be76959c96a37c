# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Moves an image and all its labels alike: flip, resize, crop, rotate and pad.

The labels of a ``results`` dict, each of them where it was loaded:

* ``gt_seg_map`` (H, W), the classes of all pixels, and ``valid_mask`` (H, W, C);
* instances: ``gt_bboxes`` (horizontal boxes, N), ``gt_masks`` (:class:`WindowedMasks`, N),
  ``gt_bboxes_labels`` int64 (N,), ``gt_ignore_flags`` bool (N,);
* rotated boxes, whose number and order are their own: ``gt_rboxes`` (M), ``gt_rboxes_labels`` int64
  (M,), ``gt_r_ignore_flags`` bool (M,).

Where there are masks, horizontal boxes are drawn anew around what becomes of them. Boxes are in
pixels from the outer corner of the first pixel, so that a box around one pixel at
(0, 0) is 0, 0, 1, 1. What is known of a pixel (image, map, mask) is moved by pixel centres. Angles
are mmrotate's: in radians, from the x axis to the first side, clockwise on the screen.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmrotate.structures.bbox import RotatedBoxes

from mmrsfm.datasets.multi_task.windowed_masks import WindowedMasks
from mmrsfm.datasets.transforms import geometry
from mmrsfm.errors import ConfigError

INSTANCE_KEYS = ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_ignore_flags')
ROTATED_KEYS = ('gt_rboxes', 'gt_rboxes_labels', 'gt_r_ignore_flags')
# Sides whose factors differ by less are scaled as one: rounding of the size to whole pixels.
_ISOTROPIC = 0.02


def take(results: dict[str, Any], keys: tuple[str, ...], chosen: np.ndarray) -> None:
    """Keeps some of the objects.

    Args:
        results: The sample.
        keys: :data:`INSTANCE_KEYS` or :data:`ROTATED_KEYS`.
        chosen: bool, one for each object.
    """
    for key in keys:
        if results.get(key) is not None:
            boxes = isinstance(results[key], (HorizontalBoxes, RotatedBoxes))
            results[key] = results[key][torch.from_numpy(chosen) if boxes else chosen]


def masks_of(results: dict[str, Any]) -> WindowedMasks | None:
    """The masks of the sample.

    Raises:
        ConfigError: If they are of another kind, which these transforms would leave behind.
    """
    masks = results.get('gt_masks')
    if masks is not None and not isinstance(masks, WindowedMasks):
        raise ConfigError(
            f'masks of the type {type(masks).__name__} in a pipeline of several kinds of label: '
            'load them by mmrsfm.LoadMultiTaskAnnotations'
        )
    return masks


def boxes_from_masks(results: dict[str, Any]) -> None:
    """Draws the horizontal boxes around the masks, where there are masks."""
    masks = masks_of(results)
    if masks is not None and results.get('gt_bboxes') is not None:
        results['gt_bboxes'] = HorizontalBoxes(torch.from_numpy(masks.boxes()))


def flip(results: dict[str, Any], direction: str) -> dict[str, Any]:
    """Mirrors the sample.

    Args:
        results: The sample, changed in place.
        direction: ``'horizontal'``, ``'vertical'`` or ``'diagonal'`` (both).
    """
    axes = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}[direction]
    h, w = results['img'].shape[:2]
    x = (-1, w) if 1 in axes else (1, 0)
    y = (-1, h) if 0 in axes else (1, 0)
    geometry.follow_geo(results, (x[0], 0, x[1], 0, y[0], y[1]))
    geometry.apply_to_fields(results, lambda array: np.flip(array, axes))
    for key in ('gt_bboxes', 'gt_rboxes'):
        if results.get(key) is not None:
            results[key].flip_((h, w), direction)
    masks = masks_of(results)
    if masks is not None:
        results['gt_masks'] = masks.flip(direction)
    return results


def resize(
    results: dict[str, Any],
    size: tuple[int, int],
    interpolation: str = 'bilinear',
    antialias: bool = False,
    keep_dtype: bool = True,
) -> dict[str, Any]:
    """Resamples the sample.

    Args:
        results: The sample, changed in place; ``scale_factor`` (x, y) is added.
        size: New (H, W).
        interpolation: Of the image; see :func:`mmrsfm.datasets.transforms.geometry.resize`.
        antialias: See there.
        keep_dtype: See there.
    """
    geometry.resize(results, size, interpolation, antialias, keep_dtype)
    x, y = results['scale_factor']
    if results.get('gt_bboxes') is not None:
        results['gt_bboxes'].rescale_((x, y))
    if results.get('gt_rboxes') is not None:
        rescale_rotated(results['gt_rboxes'], x, y)
    masks = masks_of(results)
    if masks is not None:
        results['gt_masks'] = masks.resize(*size)
        boxes_from_masks(results)
    return results


def rescale_rotated(boxes: Any, x: float, y: float) -> None:
    """Scales rotated boxes in place, by other factors along x and y, too.

    A rectangle that is not scaled alike becomes a parallelogram: the result is the rectangle of
    least area around it.

    Args:
        boxes: ``RotatedBoxes`` (M, 5).
        x: Factor along the columns.
        y: Factor along the rows.
    """
    if not len(boxes):
        return
    if abs(x - y) <= _ISOTROPIC * min(x, y):
        boxes.rescale_((x, y))
    else:
        boxes.project_(np.diag([x, y, 1.0]).astype(np.float32))


def crop(results: dict[str, Any], top: int, left: int, height: int, width: int) -> dict[str, Any]:
    """Cuts a rectangle out of the sample.

    Instances outside of it are left out, and the boxes of the others end at its edges. (Of a mask
    nothing may be left: :class:`mmrsfm.MultiTaskFilter` takes such away.) Rotated boxes stay if
    their centre lies inside, and are not cut, as in MTP.

    Args:
        results: The sample, changed in place.
        top: First row.
        left: First column.
        height: Rows; the rectangle lies in the image.
        width: Columns.
    """
    geometry.crop(results, top, left, height, width)
    masks = masks_of(results)
    if masks is not None:
        results['gt_masks'] = masks.crop(top, left, height, width)
    for key in ('gt_bboxes', 'gt_rboxes'):
        if results.get(key) is not None:
            results[key].translate_((-left, -top))
    return _drop_outside(results)


def _drop_outside(results: dict[str, Any]) -> dict[str, Any]:
    size = results['img'].shape[:2]
    if results.get('gt_bboxes') is not None:
        results['gt_bboxes'].clip_(size)
        tensor = results['gt_bboxes'].tensor
        take(results, INSTANCE_KEYS, (tensor[:, 2:] > tensor[:, :2]).all(dim=1).numpy())
        boxes_from_masks(results)
    if results.get('gt_rboxes') is not None:
        take(results, ROTATED_KEYS, results['gt_rboxes'].is_inside(size).numpy())
    return results


def rotate(
    results: dict[str, Any],
    angle: float,
    fill: float = 0.0,
    ignore_index: int = 255,
) -> dict[str, Any]:
    """Turns the sample about the middle of the image, whose size stays.

    What comes in at the corners is ``fill`` in the image, invalid where the sample has a
    ``valid_mask``, without a label in the map, and no object. Boxes are drawn around the turned
    masks; without masks, around their turned corners, which is more than the object.

    Args:
        results: The sample, changed in place.
        angle: In degrees, clockwise on the screen.
        fill: Value of the image where there is none.
        ignore_index: The label of pixels without one.
    """
    image = results['img']
    h, w = image.shape[:2]
    # About the centre of the image in the coordinates of pixel centres.
    forward = _turn(angle, ((w - 1) / 2, (h - 1) / 2))
    backward = _turn(-angle, ((w - 1) / 2, (h - 1) / 2))
    results['img'] = _warp(image, forward, fill)
    y, x = np.indices((h, w), dtype=np.float64)
    # Halves go one way, or a quarter turn of an image of odd width and even height would be torn.
    columns = np.floor(backward[0, 0] * x + backward[0, 1] * y + backward[0, 2] + 0.5 - 1e-9)
    rows = np.floor(backward[1, 0] * x + backward[1, 1] * y + backward[1, 2] + 0.5 - 1e-9)
    rows, columns = rows.astype(np.int64), columns.astype(np.int64)
    outside = (rows < 0) | (rows >= h) | (columns < 0) | (columns >= w)
    near = (np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1))
    for key in geometry.seg_keys(results):
        label = results[key][near]
        label[outside] = np.nan if np.issubdtype(label.dtype, np.floating) else ignore_index
        results[key] = label
    if results.get('valid_mask') is not None:
        results['valid_mask'] = results['valid_mask'][near] & ~outside[..., None]
    # New to old place of the outer corners of pixels.
    (a, b, c), (d, e, f) = _turn(-angle, (w / 2, h / 2))
    geometry.follow_geo(results, (a, b, c, d, e, f))
    masks = masks_of(results)
    if masks is not None:
        results['gt_masks'] = masks.remap(rows, columns, forward)
    if results.get('gt_rboxes') is not None and len(results['gt_rboxes']):
        results['gt_rboxes'].rotate_((w / 2, h / 2), angle)
    if results.get('gt_bboxes') is not None:
        results['gt_bboxes'].rotate_((w / 2, h / 2), angle)
        boxes_from_masks(results)
    results['img_shape'] = (h, w)
    return _drop_outside(results)


def _turn(angle: float, centre: tuple[float, float]) -> np.ndarray:
    """(2, 3): where (x, y) goes by a turn, clockwise on the screen; float64, unlike OpenCV's."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = centre
    return np.array(
        [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]]
    )


def _warp(image: np.ndarray, forward: np.ndarray, fill: float) -> np.ndarray:
    size = (image.shape[1], image.shape[0])
    image = np.ascontiguousarray(image)
    # OpenCV fills four bands at most.
    parts = [
        cv2.warpAffine(
            image[..., start : start + 4], forward, size, flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(fill,) * 4,
        ).reshape(*image.shape[:2], -1)
        for start in range(0, image.shape[2], 4)
    ]  # fmt: skip
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def pad(
    results: dict[str, Any], height: int, width: int, fill: float = 0.0, ignore_index: int = 255
) -> dict[str, Any]:
    """Enlarges the sample on the right and at the bottom, if it is smaller.

    Args:
        results: The sample, changed in place; ``pad_shape`` is added, ``img_shape`` stays that of
            the content.
        height: Least number of rows.
        width: Least number of columns.
        fill: Value of the padding in the image.
        ignore_index: Its label.
    """
    h, w = results['img'].shape[:2]
    edges = ((0, max(height - h, 0)), (0, max(width - w, 0)))
    results['img'] = np.pad(results['img'], (*edges, (0, 0)), constant_values=fill)
    if results.get('valid_mask') is not None:
        results['valid_mask'] = np.pad(results['valid_mask'], (*edges, (0, 0)))
    for key in geometry.seg_keys(results):
        floating = np.issubdtype(results[key].dtype, np.floating)
        results[key] = np.pad(
            results[key], edges, constant_values=np.nan if floating else ignore_index
        )
    masks = masks_of(results)
    if masks is not None:
        results['gt_masks'] = masks.pad(*results['img'].shape[:2])
    results['pad_shape'] = results['img'].shape[:2]
    return results
