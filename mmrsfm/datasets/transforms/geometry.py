# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the geometric transforms share: crop, flip, rotate, pad and resample all aligned fields.

The aligned fields of a ``results`` dict are ``img`` (H, W, C), ``valid_mask`` (H, W, C) bool where
it is present, and every (H, W) map that ``seg_fields`` names. ``geo`` follows, so that what a model
predicts can be written with the right georeference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mmrsfm.errors import ConfigError, ImageSizeError

INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic')
_UNALIGNED = ('gt_bboxes', 'gt_masks', 'gt_keypoints', 'proposals')


def refuse_boxes(results: dict[str, Any], transform: str) -> None:
    """Raises where the sample holds annotations that these transforms would leave behind.

    Raises:
        ConfigError: If boxes, instance masks or keypoints are present, or the targets of MMEarth.
    """
    found = [key for key in _UNALIGNED if results.get(key) is not None]
    if found:
        raise ConfigError(
            f'mmrsfm.{transform} keeps image, mask and label maps aligned, but not {found}. '
            'Use the transforms of mmdet or mmrotate in detection pipelines.'
        )
    if isinstance(results.get('targets'), Mapping):
        raise ConfigError(
            f'mmrsfm.{transform} would leave the targets of mmrsfm.NormalizeMMEarth behind: put it '
            'before NormalizeMMEarth'
        )


def refuse_stored_numbers(results: dict[str, Any], interpolation: str) -> None:
    """Raises where interpolation would mix the no-data values of MMEarth with the others.

    Raises:
        ConfigError: For the stored numbers of a tile, unless the nearest one is taken.
    """
    if 'layer_choices' in results and interpolation != 'nearest':
        raise ConfigError(
            f'{interpolation} interpolation before mmrsfm.NormalizeMMEarth mixes what is missing, '
            'and class numbers, with values: crop, or resample with interpolation="nearest"'
        )


def require_size(results: dict[str, Any], size: Sequence[int]) -> tuple[int, int]:
    """Returns the size (H, W) of the image, which a crop of ``size`` must fit into.

    Raises:
        ImageSizeError: If the image is smaller.
    """
    h, w = results['img'].shape[:2]
    if h < size[0] or w < size[1]:
        raise ImageSizeError(
            f'{h} x {w} pixels (H x W) are less than the crop of {size[0]} x {size[1]}',
            path=results.get('img_path'),
            hint='Put mmrsfm.Pad or mmrsfm.Resize before it',
        )
    return h, w


def seg_keys(results: dict[str, Any]) -> list[str]:
    """Names of the (H, W) label maps of the sample."""
    keys = list(results.get('seg_fields', ()))
    if 'gt_seg_map' in results and 'gt_seg_map' not in keys:
        keys.append('gt_seg_map')
    return keys


def apply_to_fields(
    results: dict[str, Any], function: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Applies one re-arrangement of rows and columns to every aligned field, in place."""
    for key in ('img', 'valid_mask', *seg_keys(results)):
        if results.get(key) is not None:
            results[key] = function(results[key])
    results['img_shape'] = results['img'].shape[:2]
    return results


def follow_geo(results: dict[str, Any], matrix: Sequence[float]) -> None:
    """Composes ``geo.transform`` with the map from new (column, row) to old (column, row).

    Args:
        results: The sample; nothing happens without ``geo``.
        matrix: (a, b, c, d, e, f): old column = a*column + b*row + c, old row = d*column + e*row +
            f, in pixels, with (0, 0) the outer corner of the first pixel.
    """
    geo = results.get('geo')
    if not geo or geo.get('transform') is None:
        return
    A, B, C, D, E, G = geo['transform']
    a, b, c, d, e, f = matrix
    transform = (
        A * a + B * d, A * b + B * e, A * c + B * f + C,
        D * a + E * d, D * b + E * e, D * c + E * f + G,
    )  # fmt: skip
    results['geo'] = {**geo, 'transform': transform}


def crop(results: dict[str, Any], top: int, left: int, height: int, width: int) -> dict[str, Any]:
    """Cuts the rectangle out of every aligned field (views, no copies)."""
    follow_geo(results, (1, 0, left, 0, 1, top))
    return apply_to_fields(results, lambda array: array[top : top + height, left : left + width])


def resize(
    results: dict[str, Any],
    size: tuple[int, int],
    interpolation: str,
    antialias: bool,
    keep_dtype: bool = False,
) -> dict[str, Any]:
    """Resamples every aligned field to ``size`` (H, W).

    The image is interpolated as float32 (``torch.nn.functional.interpolate``, pixel centres at half
    integers), label maps by nearest neighbour. A resampled pixel is valid only if every pixel that
    contributes to it is.

    Args:
        results: The sample.
        size: New (H, W).
        interpolation: One of ``INTERPOLATIONS``, for the image.
        antialias: Widen the kernel when shrinking.
        keep_dtype: Round and clip back to the integer type of the image; otherwise the result is
            float32.
    """
    refuse_stored_numbers(results, interpolation)
    image = results['img']
    h, w = image.shape[:2]
    if (h, w) != tuple(size):
        valid = results.get('valid_mask')
        if valid is not None:
            image = fill_invalid(image, valid)
            results['valid_mask'] = resample_valid(valid, size, interpolation, antialias)
        results['img'] = resample_image(image, size, interpolation, antialias, keep_dtype)
        for key in seg_keys(results):
            results[key] = resample_nearest(results[key], size)
        follow_geo(results, (w / size[1], 0, 0, 0, h / size[0], 0))
    elif not keep_dtype:
        # The type must not depend on the size that was drawn: a batch is of one.
        results['img'] = image.astype(np.float32, copy=False)
    results['img_shape'] = tuple(size)
    results['scale_factor'] = (size[1] / w, size[0] / h)
    return results


def resample_image(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str,
    antialias: bool,
    keep_dtype: bool = False,
) -> np.ndarray:
    """Resamples (H, W, C) to (size[0], size[1], C); float32 unless ``keep_dtype``."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
    options: dict[str, Any] = {'mode': interpolation}
    if interpolation != 'nearest':
        options.update(align_corners=False, antialias=antialias)
    else:
        options['mode'] = 'nearest-exact'  # 'nearest' is shifted by half a pixel
    out = F.interpolate(planes[None], size=tuple(size), **options)[0].numpy()
    if keep_dtype and np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        np.clip(np.rint(out, out=out), limits.min, limits.max, out=out)
        out = out.astype(image.dtype)
    return out.transpose(1, 2, 0)


def resample_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour for (H, W) or (H, W, C) of any type; pixel centres at half integers."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for new, old in zip(size, array.shape[:2], strict=True)
    )
    return array[rows[:, None], columns[None, :]]


def resample_valid(
    valid: np.ndarray, size: tuple[int, int], interpolation: str, antialias: bool
) -> np.ndarray:
    """Validity after resampling: true where all pixels under the kernel are valid.

    Bicubic weights have both signs, so that interpolating the mask itself could cancel to zero;
    instead the kernel's support is searched for invalid pixels.
    """
    if interpolation == 'nearest':
        return resample_nearest(valid, size)
    invalid = ~valid
    for axis in (0, 1):
        invalid = _any_under_kernel(invalid, axis, size[axis], interpolation, antialias)
    return ~invalid


def _any_under_kernel(
    invalid: np.ndarray, axis: int, new: int, interpolation: str, antialias: bool
) -> np.ndarray:
    old = invalid.shape[axis]
    if new == old:
        return invalid
    scale = old / new
    radius = {'bilinear': 1.0, 'bicubic': 2.0}[interpolation]
    if antialias:
        radius *= max(1.0, scale)
    centre = (np.arange(new) + 0.5) * scale
    # Pixels whose centres (i + 0.5) lie strictly inside centre +- radius have a weight.
    first = np.floor(centre - radius - 0.5 + 1e-6).astype(np.int64) + 1
    last = np.ceil(centre + radius - 0.5 - 1e-6).astype(np.int64)
    # Taps beyond the border repeat the border pixel, which is under the kernel then.
    counts = np.zeros((old + 1, *np.delete(invalid.shape, axis)), np.int32)
    np.cumsum(np.moveaxis(invalid, axis, 0), axis=0, out=counts[1:])
    found = counts[np.clip(last, 0, old)] > counts[np.clip(first, 0, old)]
    return np.moveaxis(found, 0, axis)


def fill_invalid(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Replaces invalid values by the mean of the band's valid ones (0 where there are none).

    So that NaN, infinities and no-data values do not spread into their neighbours when the image is
    resampled. The pixels stay marked as invalid.
    """
    image = image.copy()
    for band in range(image.shape[2]):
        good = valid[..., band]
        if not good.all():
            mean = image[..., band].mean(dtype=np.float64, where=good) if good.any() else 0.0
            if np.issubdtype(image.dtype, np.integer):
                mean = np.rint(mean)
            image[..., band][~good] = mean
    return image


def draw_crop(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    attempts: int = 10,
) -> tuple[int, int, int, int]:
    """Draws a rectangle of random area and aspect, as torchvision's RandomResizedCrop defines it.

    Area fraction uniform in ``scale``, aspect (width / height) log-uniform in ``ratio``; after
    ``attempts`` rectangles that do not fit, the largest centred one with an allowed aspect.
    (Inception crop: Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842.)

    Returns:
        (top, left, height, width) in pixels. Drawn from NumPy's global generator.
    """
    for _ in range(attempts):
        area = height * width * np.random.uniform(*scale)
        aspect = math.exp(np.random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = np.random.randint(0, height - h + 1)
            left = np.random.randint(0, width - w + 1)
            return int(top), int(left), h, w
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w = min(width, round(height * aspect))
    h = min(height, round(width / aspect))
    return (height - h) // 2, (width - w) // 2, h, w
