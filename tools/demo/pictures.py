# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws what a model of the demonstrations predicts beside the truth.

Example::

    python tools/demo/pictures.py obb CONFIG CHECKPOINT picture.png
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

from mmengine.config import DictAction  # noqa: E402

from mmrsfm.engine import run_config, safe_loading  # noqa: E402
from mmrsfm.visualization.panels import colourise, draw_panels, stretch  # noqa: E402

TRUTH, PREDICTION = (255, 220, 0), (0, 230, 255)
Panels = list[tuple[str, np.ndarray]]


def predict(
    config: Path, checkpoint: Path, options: dict[str, str]
) -> Iterator[tuple[np.ndarray, Any]]:
    """Predicts what the test loader of a config gives.

    Args:
        config: The config.
        checkpoint: The trained weights.
        options: Values that override the config.

    Yields:
        The packed input of a sample, (C, H, W), and its data sample with truth and prediction.
    """
    import torch
    from mmengine.runner import Runner

    safe_loading.enable()
    cfg = run_config.load_config(config, options)
    cfg.work_dir = str(checkpoint.parent / 'drawing')
    cfg.load_from, cfg.log_level = str(checkpoint), 'ERROR'
    run_config.set_dataloader_defaults(cfg)
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    runner.model.eval()
    for batch in runner.test_dataloader:
        with torch.no_grad():
            outputs = runner.model.test_step(batch)
        for image, sample in zip(batch['inputs'], outputs, strict=True):
            yield image.numpy(), sample


def mosaic(images: Sequence[np.ndarray], columns: int = 4, gap: int = 6) -> np.ndarray:
    """Images of one size in rows, with white lines between them, uint8 (H, W, 3)."""
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def draw_polygons(
    image: np.ndarray, polygons: np.ndarray, colour: Sequence[int], scale: int = 2
) -> np.ndarray:
    """Draws outlines on an enlarged copy of an image.

    Args:
        image: uint8 (H, W, 3).
        polygons: (N, K, 2), x and y of K corners in pixels of the image.
        colour: Red, green, blue.
        scale: Enlargement, so that a line is thinner than a pixel of the image.

    Returns:
        uint8 (scale H, scale W, 3).
    """
    out = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    corners = (np.asarray(polygons, dtype=np.float32) * scale).round().astype(np.int32)
    return cv2.polylines(out, list(corners), True, tuple(colour), 2, cv2.LINE_AA)


def draw_mask(image: np.ndarray, mask: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    """Lays a mask over an image, half transparent, with its outline."""
    out = image.copy()
    out[mask] = (out[mask] * 0.55 + np.asarray(colour) * 0.45).astype(np.uint8)
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(out, lines, -1, tuple(colour), 1)


def corners_of(boxes: Any) -> np.ndarray:
    """Corners of horizontal boxes or of the oriented boxes of mmrotate, (N, 4, 2)."""
    tensor = getattr(boxes, 'tensor', boxes).cpu()
    if tensor.shape[1] == 5:  # centre, width, height, angle
        from mmrotate.structures.bbox import rbox2qbox

        return rbox2qbox(tensor).numpy().reshape(-1, 4, 2)
    array = tensor.numpy()
    if array.shape[1] == 8:
        return array.reshape(-1, 4, 2)
    left, top, right, bottom = array.T
    return np.stack([left, top, right, top, right, bottom, left, bottom], axis=1).reshape(-1, 4, 2)


def _rgb(path: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _detection_panels(samples: list[tuple[np.ndarray, Any]], threshold: float) -> Panels:
    truth, found = [], []
    for _, sample in samples:
        image = _rgb(sample.img_path)
        truth.append(draw_polygons(image, corners_of(sample.gt_instances.bboxes), TRUTH))
        kept = sample.pred_instances[sample.pred_instances.scores >= threshold]
        found.append(draw_polygons(image, corners_of(kept.bboxes), PREDICTION))
    return [('truth', mosaic(truth)), (f'prediction, score >= {threshold}', mosaic(found))]


def _mask_panels(samples: list[tuple[np.ndarray, Any]], dates: bool) -> Panels:
    shown: dict[str, list[np.ndarray]] = {}
    for _, sample in samples:
        paths = sample.img_path if dates else [sample.img_path]
        images = [_rgb(path) for path in paths]
        if dates:
            shown.setdefault('date A', []).append(images[0])
            shown.setdefault('date B (buildings painted over or back: simulated)', []).append(
                images[1]
            )
        truth = sample.gt_sem_seg.data[0].cpu().numpy() == 1
        found = sample.pred_sem_seg.data[0].cpu().numpy() == 1
        shown.setdefault('truth', []).append(draw_mask(images[-1], truth, TRUTH))
        shown.setdefault('prediction', []).append(draw_mask(images[-1], found, PREDICTION))
    return [(title, mosaic(images)) for title, images in shown.items()]


def _tile_panels(samples: list[tuple[np.ndarray, Any]], palette: Sequence) -> Panels:
    """The strip of a scene from its tiles, whose names are their row and column in the scene."""
    size = samples[0][0].shape[-1]
    places = [tuple(map(int, Path(sample.img_path).stem.split('_'))) for _, sample in samples]
    origin = np.min(places, axis=0)
    height, width = np.max(places, axis=0) - origin + size
    bands = np.full((height, width, 3), np.nan, np.float32)
    truth, found = (np.full((height, width), 255, np.uint8) for _ in range(2))
    hits = 0
    for (image, sample), place in zip(samples, places, strict=True):
        top, left = np.asarray(place) - origin
        window = (slice(top, top + size), slice(left, left + size))
        bands[window] = image[[3, 2, 1]].transpose(1, 2, 0)  # B04, B03, B02
        truth[window], found[window] = int(sample.gt_label), int(sample.pred_label)
        hits += int(sample.gt_label) == int(sample.pred_label)
    picture = stretch(bands, gamma=0.7)
    picture[np.isnan(bands).any(axis=2)] = 255
    return [
        ('Sentinel-2 (B04, B03, B02); tiles of no class are left out', picture),
        ('class of each tile, from NDWI, NDVI and NDBI', colourise(truth, palette)),
        (f'prediction: {hits / len(samples):.1%} of the tiles agree', colourise(found, palette)),
    ]


def draw_task(
    task: str,
    config: Path,
    checkpoint: Path,
    options: dict[str, str],
    out: Path,
    caption: str,
    threshold: float = 0.5,
) -> Path:
    """Draws predictions beside the truth.

    Args:
        task: ``'cls'``, ``'hbb'``, ``'obb'``, ``'seg'`` or ``'cd'``.
        config: The config.
        checkpoint: The trained weights.
        options: Values that override the config.
        out: The PNG to write.
        caption: A line below.
        threshold: Least score of a box.

    Returns:
        ``out``.
    """
    samples = list(predict(config, checkpoint, options))
    caption = '\n'.join(textwrap.wrap(caption, 190))
    if task == 'cls':
        from data_sentinel2 import CLASSES, PALETTE

        legend = list(zip(CLASSES, PALETTE, strict=True))
        return draw_panels(out, _tile_panels(samples, PALETTE), legend, caption)
    # Spread over the data set; four of two dates, which take four panels.
    limit = 4 if task == 'cd' else 8
    if len(samples) > limit:
        chosen = np.linspace(0, len(samples) - 1, limit).round().astype(int)
        samples = [samples[number] for number in chosen]
    makers: dict[str, Callable[[], Panels]] = {
        'hbb': lambda: _detection_panels(samples, threshold),
        'obb': lambda: _detection_panels(samples, threshold),
        'seg': lambda: _mask_panels(samples, dates=False),
        'cd': lambda: _mask_panels(samples, dates=True),
    }
    return draw_panels(out, makers[task](), caption=caption)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('task', choices=('cls', 'hbb', 'obb', 'seg', 'cd'))
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('out', type=Path, help='the PNG to write')
    parser.add_argument(
        '--caption', default='', help='a line below, e.g. the credit of the imagery'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    draw_task(args.task, args.config, args.checkpoint, args.cfg_options, args.out, args.caption)


if __name__ == '__main__':
    main()
