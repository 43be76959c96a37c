# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DOTA's annotations of whole images, as mmrotate's average precision takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mmrsfm.errors import DatasetNotFoundError
from mmrsfm.evaluation.submissions.dota_format import BOX_SIZES
from mmrsfm.utils.dota import label_of, read_dota_objects


def read_annotations(
    path: str | Path, classes: Sequence[str], diff_thr: int = 100, box_type: str = 'rbox'
) -> dict[str, np.ndarray]:
    """Reads the objects of one image.

    Args:
        path: Text file; see :func:`mmrsfm.utils.dota.read_dota_objects`.
        classes: Names of the classes.
        diff_thr: Objects with a higher difficulty are to be ignored.
        box_type: ``'rbox'`` or ``'qbox'``.

    Returns:
        ``bboxes`` and ``bboxes_ignore`` float32 (N, 5) or (N, 8), ``labels`` and ``labels_ignore``
        int64 (N,).

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If a line is not of that form, or its class is unknown.
    """
    if not Path(path).is_file():
        raise DatasetNotFoundError(
            'does not exist', path=path, hint='ann_dir must hold one file for each whole image'
        )
    numbers = {name: number for number, name in enumerate(classes)}
    found: dict[bool, list[tuple[list[float], int]]] = {False: [], True: []}
    for one in read_dota_objects(path):
        found[one.difficulty > diff_thr].append((one.corners, label_of(one, numbers, path)))
    result = {}
    for difficult, suffix in ((False, ''), (True, '_ignore')):
        corners_of = np.array([item[0] for item in found[difficult]], np.float32).reshape(-1, 8)
        result[f'bboxes{suffix}'] = _as_boxes(corners_of, box_type)
        result[f'labels{suffix}'] = np.array([item[1] for item in found[difficult]], np.int64)
    return result


def _as_boxes(corners: np.ndarray, box_type: str) -> np.ndarray:
    if box_type == 'qbox':
        return corners
    if not len(corners):
        return np.zeros((0, BOX_SIZES[box_type]), np.float32)
    from mmrotate.structures.bbox import qbox2rbox

    return qbox2rbox(torch.from_numpy(corners)).numpy()
