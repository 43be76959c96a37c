# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of pretraining: training images, and what an algorithm makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmrsfm.visualization.modality_visualizer import beside
from mmrsfm.visualization.objects import draw_boxes, draw_masks
from mmrsfm.visualization.panels import colourise, distinct_colours
from mmrsfm.visualization.samples import draw_image

_COLOURS = 64  # classes that have one of their own
_SCORE = 0.3  # objects below are not drawn
_MOST = 100  # objects of an image
_KINDS = (  # what it is called, its labels, what is predicted
    ('instances', 'gt_instances', 'pred_instances'),
    ('rotated boxes', 'r_gt_instances', 'pred_r_instances'),
)


def multi_task_panels(sample: Any, picture: np.ndarray) -> np.ndarray:
    """The image, then labels and predictions of each task, beside each other.

    Args:
        sample: A data sample of :meth:`mmrsfm.MTP.predict`, in pixels of the picture. It may have
            ``gt_sem_seg`` and ``pred_sem_seg``; ``gt_instances`` and ``pred_instances`` (boxes,
            masks); ``r_gt_instances`` and ``pred_r_instances`` (rotated boxes).
        picture: uint8 (H, W, 3).

    Returns:
        uint8 (H', W', 3): of predictions, the objects with a score of at least 0.3.
    """
    panels = [('image', picture)]
    palette = distinct_colours(_COLOURS)
    for title, prefix in (('labels', 'gt'), ('predicted', 'pred')):
        found = sample.get(f'{prefix}_sem_seg')
        if found is not None:
            panels.append((f'classes, {title}', _classes(found, picture, palette)))
        for kind, *names in _KINDS:
            objects = sample.get(names[prefix == 'pred'])
            if objects is not None and objects.get('bboxes') is not None:
                drawn, count = _objects(objects, picture, palette)
                panels.append((f'{kind}, {title}: {count}', drawn))
    # A label and its prediction one after the other, whichever tasks there are.
    first, rest = panels[:1], panels[1:]
    rest.sort(key=lambda panel: _order(panel[0]))
    return beside(first + rest)


def _order(title: str) -> tuple[int, bool]:
    kinds = ('classes', 'instances', 'rotated')
    return next(n for n, kind in enumerate(kinds) if title.startswith(kind)), 'predicted' in title


def _classes(found: Any, picture: np.ndarray, palette: list[list[int]]) -> np.ndarray:
    """Class 0, usually the background, is black; what is not labelled (255) is white."""
    classes = found.data.squeeze(0).cpu().numpy()
    height, width = picture.shape[:2]
    out = np.full((height, width, 3), 255, np.uint8)
    classes = classes[:height, :width]
    out[: len(classes), : classes.shape[1]] = colourise(classes, [[0, 0, 0], *palette[:-1]])
    return out


def _objects(objects: Any, picture: np.ndarray, palette: list[list[int]]) -> tuple[np.ndarray, int]:
    if objects.get('scores') is not None:
        objects = objects[objects.scores >= _SCORE]
        objects = objects[objects.scores.argsort(descending=True)[:_MOST]]
    boxes = getattr(objects.bboxes, 'tensor', objects.bboxes).detach().cpu().numpy()
    labels = objects.labels.cpu().numpy().tolist()
    drawn = picture
    masks = objects.get('masks')
    if masks is not None and len(boxes):
        arrays = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks.cpu().numpy()
        height, width = picture.shape[:2]
        if arrays.shape[-2] >= height and arrays.shape[-1] >= width:
            drawn = draw_masks(drawn, arrays[:, :height, :width], labels, palette)
    if len(boxes):
        drawn = draw_boxes(drawn, boxes, labels, palette)
    return drawn, len(boxes)


def draw_training_sample(sample: Any, shown: dict[str, Any]) -> np.ndarray:
    """A training image and what a pretraining algorithm makes of it.

    Args:
        sample: The data sample that it predicted: with ``reconstruction``
            (:func:`mmrsfm.visualization.reconstruction_visualizer.reconstruction_panels`), or
            that of :func:`multi_task_panels`.
        shown: The image, as :func:`mmrsfm.visualization.samples.draw_image` takes it.

    Returns:
        uint8 (H, W, 3).
    """
    from mmrsfm.visualization.reconstruction_visualizer import arranged

    found = getattr(sample, 'reconstruction', None)
    if found is not None:
        return arranged(found, band_names=shown.get('band_names'))
    # mmrsfm's loader states the scale; that of mmcv, which does not, gives BGR.
    return multi_task_panels(sample, draw_image(shown, bgr=getattr(sample, 'scale', None) is None))


def stacked(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of samples as one: wide ones below each other, tall ones beside each other.

    Args:
        pictures: uint8 (H, W, 3), of any sizes; what is missing becomes white.

    Returns:
        uint8 (H', W', 3).
    """
    axis = 0 if pictures[0].shape[1] >= pictures[0].shape[0] else 1
    other = 1 - axis
    size = max(picture.shape[other] for picture in pictures)
    padded = []
    for picture in pictures:
        pads = [(0, 0)] * 3
        pads[other] = (0, size - picture.shape[other])
        padded.append(np.pad(picture, pads, constant_values=255))
    return np.concatenate(padded, axis=axis)
