# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of what a data pipeline makes of a sample, step by step, for imagery of any kind."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrsfm.errors import BandMismatchError, ConfigError
from mmrsfm.randomness import derive_seed, seeded
from mmrsfm.visualization.panels import colourise, stretch

MODES = ('original', 'transformed', 'pipeline')
_NATURAL_COLOURS = (
    ('B04', 'B03', 'B02'), ('B4', 'B3', 'B2'), ('R', 'G', 'B'), ('red', 'green', 'blue'),
)  # fmt: skip
_KEPT = (
    'img', 'valid_mask', 'gt_seg_map', 'band_names', 'img_path', 'gt_label', 'num_dates',
    'gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_rboxes', 'gt_rboxes_labels',
)  # fmt: skip


def run_pipeline(
    dataset: Any, index: int, seed: int = 0, epoch: int = 0
) -> list[tuple[str, dict[str, Any]]]:
    """Runs the pipeline of a dataset on one sample and keeps every step.

    Args:
        dataset: A dataset of MMEngine (with ``pipeline.transforms`` and ``get_data_info``).
        index: The sample.
        seed: Seed of the run.
        epoch: The epoch: what is drawn is what a training with that seed draws in it.

    Returns:
        Name of the transform and a copy of the sample after it, for each step that leaves an image.

    Raises:
        ConfigError: If a transform rejects the sample.
    """
    results = dataset.get_data_info(index)
    steps = []
    with seeded(derive_seed(seed, epoch, index)):
        for transform in dataset.pipeline.transforms:
            name = type(transform).__name__
            results = transform(results)
            if results is None:
                raise ConfigError(f'{name} rejects sample {index} in epoch {epoch}')
            if isinstance(results.get('img'), (np.ndarray, list)) and not name.startswith('Pack'):
                kept = {key: results[key] for key in _KEPT if key in results}
                steps.append((name, copy.deepcopy(kept)))
    return steps


def choose_steps(
    steps: Sequence[tuple[str, dict[str, Any]]], mode: str
) -> list[tuple[str, dict[str, Any]]]:
    """The steps that a mode shows: as loaded, as a model gets it, or all.

    Args:
        steps: From :func:`run_pipeline`.
        mode: ``'original'``, ``'transformed'`` or ``'pipeline'``.

    Raises:
        ConfigError: If there is no image, or the mode is unknown.
    """
    if mode not in MODES:
        raise ConfigError(f'mode is one of {MODES}, got {mode!r}')
    if not steps:
        raise ConfigError('the pipeline loads no image')
    if mode == 'pipeline':
        return list(steps)
    if mode == 'transformed':
        return [steps[-1]]
    loaded = [step for step in steps if 'Load' in step[0]]
    return [loaded[-1] if loaded else steps[0]]


def natural_bands(names: Sequence[str] | None) -> list[int] | None:
    """The numbers of red, green and blue, from 0, where the names of the bands tell them."""
    names = list(names or ())
    for natural in _NATURAL_COLOURS:
        if set(natural) <= set(names):
            return [names.index(band) for band in natural]
    return None


def draw_image(
    sample: dict[str, Any], bands: Sequence[str | int] | None = None, bgr: bool = False
) -> np.ndarray:
    """Three bands, stretched between percentiles, with invalid pixels hatched in red.

    Args:
        sample: With ``img`` (H, W, C) and, where present, ``valid_mask`` and ``band_names``.
        bands: Three bands, or one, by name or one-based number; ``None`` takes natural colours
            where the names tell them, else the first three; of a sample that has no data in these
            at all (a modality is missing), what it has.
        bgr: The image is in the order of OpenCV.

    Returns:
        uint8 (H, W, 3).

    Raises:
        BandMismatchError: If a band is not there.
    """
    image, valid = sample['img'], sample.get('valid_mask')
    image = image[..., None] if image.ndim == 2 else image
    chosen = _choose_bands(sample, image.shape[2], bands, bgr)
    shown = image[..., chosen].astype(np.float32)
    if valid is not None:
        shown = np.where(valid[..., chosen], shown, np.nan)
    if bands is None and not np.isfinite(shown).any():
        known = np.isfinite(image) if valid is None else valid & np.isfinite(image)
        left = np.flatnonzero(known.any(axis=(0, 1)))
        if left.size:
            chosen = (left[:3] if left.size >= 3 else left[[0, -1, 0]]).tolist()
            shown = np.where(known[..., chosen], image[..., chosen], np.nan)
    if image.dtype == np.uint8:  # shown as it is: whoever made it has stretched it
        picture = np.nan_to_num(shown).astype(np.uint8)
    else:
        picture = stretch(shown, (2.0, 98.0))
    invalid = ~np.isfinite(shown).all(axis=2)
    rows, columns = np.indices(invalid.shape)
    step = max(3, round(max(invalid.shape) / 64))
    hatch = (rows + columns) % step == 0
    picture[invalid] = (70, 0, 0)
    picture[invalid & hatch] = (255, 60, 60)
    return picture


def draw_dates(
    sample: dict[str, Any], bands: Sequence[str | int] | None = None, bgr: bool = False
) -> list[tuple[str, np.ndarray]]:
    """The pictures of a sample, each with a word for its title: two of a pair of dates, else one.

    Dates of one size are stretched alike, so that what changed looks changed.

    Args:
        sample: As for :func:`draw_image`; ``img`` may be a list of images, or hold ``num_dates``
            images behind each other (:class:`mmrsfm.LoadImagePair`).
        bands: See :func:`draw_image`.
        bgr: See :func:`draw_image`.

    Returns:
        What to add to the title, and the picture, uint8 (H, W, 3).

    Raises:
        BandMismatchError: If a band is not there.
    """
    images = sample['img']
    masks = None
    if not isinstance(images, list):
        count = sample.get('num_dates', 1)
        if count == 1:
            return [('', draw_image(sample, bands, bgr))]
        images = np.split(images, count, axis=2)
        if sample.get('valid_mask') is not None:
            masks = np.split(sample['valid_mask'], count, axis=2)
    rest = {key: value for key, value in sample.items() if key != 'valid_mask'}
    if len({image.shape for image in images}) == 1:
        wide = {**rest, 'img': np.concatenate(images, axis=1)}
        if masks is not None:
            wide['valid_mask'] = np.concatenate(masks, axis=1)
        pictures = np.split(draw_image(wide, bands, bgr), len(images), axis=1)
    else:
        pictures = [draw_image({**rest, 'img': image}, bands, bgr) for image in images]
    return [(f', date {number}', picture) for number, picture in enumerate(pictures, 1)]


def describe_label(label: Any, classes: Sequence[str]) -> str:
    """The class of a sample, or its classes, by name where the names are known.

    Args:
        label: A number, or several.
        classes: Names.
    """
    several = np.ndim(label) == 1
    names = [
        str(classes[int(one)])
        if isinstance(one, (int, np.integer)) and one < len(classes)
        else str(one)
        for one in (label if several else [label])
    ]
    return ', '.join(names) or 'none'


def draw_labels(
    sample: dict[str, Any], picture: np.ndarray, palette: Sequence[Sequence[int]], opacity: float
) -> np.ndarray:
    """Lays the label map over a picture; unlabelled pixels (255) stay as they are.

    Args:
        sample: With ``gt_seg_map`` (H, W); one of another size than the picture (OSCD keeps the
            labels small) is stretched over it.
        picture: uint8 (H, W, 3).
        palette: Colour of each class.
        opacity: Of the labels, in [0, 1].
    """
    label = sample['gt_seg_map']
    if label.shape != picture.shape[:2]:
        rows, columns = (
            np.arange(new) * old // new
            for new, old in zip(picture.shape[:2], label.shape, strict=True)
        )
        label = label[np.ix_(rows, columns)]
    painted = colourise(label, palette).astype(np.float32)
    mixed = picture * (1 - opacity) + painted * opacity
    return np.where((label != 255)[..., None], mixed, picture).astype(np.uint8)


def _choose_bands(
    sample: dict[str, Any], count: int, bands: Sequence[str | int] | None, bgr: bool
) -> list[int]:
    names = list(sample.get('band_names') or ())
    if bands is None:
        natural = natural_bands(names)
        if natural is not None:
            return natural
        if count < 3:
            return [0, count - 1, 0] if count == 2 else [0, 0, 0]
        return [2, 1, 0] if bgr else [0, 1, 2]
    chosen = []
    for band in bands:
        if str(band) in names:
            chosen.append(names.index(str(band)))
        elif str(band).isdigit() and 1 <= int(band) <= count:
            chosen.append(int(band) - 1)
        else:
            raise BandMismatchError(
                f'not among the {count} bands {names or "(unnamed)"}',
                path=sample.get('img_path'),
                band=band,
            )
    if len(chosen) not in (1, 3):
        raise BandMismatchError(f'three bands, or one, make a picture; got {list(bands)}')
    return chosen if len(chosen) == 3 else chosen * 3
