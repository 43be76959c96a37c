# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DOTA's annotations of whole images, as mmrotate's average precision takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.evaluation.submissions.dota_format import BOX_SIZES


def read_annotations(
    path: str | Path, classes: Sequence[str], diff_thr: int = 100, box_type: str = 'rbox'
) -> dict[str, np.ndarray]:
    """Reads the objects of one image.

    Args:
        path: Text file with lines ``x1 y1 x2 y2 x3 y3 x4 y4 class difficulty``; the two lines of
            DOTA's header (``imagesource:``, ``gsd:``) and empty lines are passed over.
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
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError(
            'does not exist', path=path, hint='ann_dir must hold one file for each whole image'
        )
    numbers = {name: number for number, name in enumerate(classes)}
    found: dict[bool, list[tuple[list[float], int]]] = {False: [], True: []}
    for row, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip() or line.lower().startswith(('imagesource', 'gsd')):
            continue
        parts = line.split()
        try:
            corners = [float(value) for value in parts[:8]]
            label, difficult = numbers[parts[8]], int(parts[9]) > diff_thr
        except (ValueError, IndexError, KeyError) as error:
            raise DataError(
                f'line {row} is no object of the {len(classes)} classes: {line!r}', path=path
            ) from error
        found[difficult].append((corners, label))
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
