# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Detections of patches merged to those of whole images, and the files that DOTA's server takes.

The names of patches, the merging by a second non-maximum suppression and the format of the files
are those of DOTA (Xia et al., CVPR 2018, arXiv 1711.10398) as mmrotate's splitter and its tests
use them; the server is that of https://captain-whu.github.io/DOTA.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmrsfm.errors import DataError
from mmrsfm.evaluation.submissions.rotated_nms import nms_rotated_sparse

BOX_SIZES = {'rbox': 5, 'qbox': 8, 'hbox': 4}
VERTEX_ORDERS = ('best_begin', 'rbox')
_MANY = 300  # boxes of a class for which mmcv's all-pairs operator takes longer on a CPU
_PATCH = re.compile(r'^(?P<image>.+)__(?P<number>\d+\.?\d*|\.\d+)__(?P<x>\d+)___(?P<y>\d+)$')
_SMALLEST = 8  # pixels: no window is smaller, so that a smaller number is a rate


@dataclass(frozen=True)
class PatchName:
    """What the name of a patch says.

    Attributes:
        image: Name of the original image, without its suffix.
        x: Column at which the patch begins.
        y: Row at which it begins.
        size: Side of the patch in pixels of the original image; ``None`` where the name does not
            say it.
        rate: Factor by which the image was resized before it was split. Then ``x``, ``y`` and
            what is found in the patch count pixels of the resized image.
    """

    image: str
    x: int = 0
    y: int = 0
    size: int | None = None
    rate: float = 1.0

    @classmethod
    def parse(cls, name: str) -> PatchName:
        """Reads the name of a patch; any other name is an image that was not split.

        ``<image>__<size>__<x>___<y>`` is a window of the original image, as mmrotate's splitter
        cuts it. ``<image>__<rate>__<x>___<y>`` is one of the resized image, as DOTA's own devkit
        does. A decimal number, or one below 8, is a rate.

        Raises:
            DataError: If the rate is 0.
        """
        found = _PATCH.match(name)
        if found is None:
            return cls(name)
        number, x, y = found['number'], int(found['x']), int(found['y'])
        if number.isdigit() and int(number) >= _SMALLEST:
            return cls(found['image'], x, y, int(number))
        if not float(number):
            raise DataError('the name of the patch states a rate of 0', path=name)
        return cls(found['image'], x, y, rate=float(number))


@dataclass
class Detections:
    """Boxes in one patch or image.

    Attributes:
        name: The patch or the image, without suffix.
        boxes: float32 (N, 5) as x, y, width, height, angle in radians; or (N, 8) as four corners;
            or (N, 4) as x1, y1, x2, y2. Pixels of the patch.
        scores: float32 (N,).
        labels: Class numbers, (N,).
        shape: Height and width of the patch in pixels, where they are known.
    """

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    shape: tuple[int, int] | None = None


def group_by_image(patches: Iterable[Detections]) -> Iterator[tuple[str, list[Detections]]]:
    """Yields each original image with its patches, both in the order of their names.

    Independent of the order in which the patches came, and thus of the number of processes.
    """
    groups: dict[str, list[Detections]] = {}
    for patch in patches:
        groups.setdefault(PatchName.parse(patch.name).image, []).append(patch)
    for image in sorted(groups):
        yield image, sorted(groups[image], key=lambda patch: patch.name)


def merge_patches(
    patches: Sequence[Detections],
    num_classes: int,
    iou_thr: float = 0.1,
    box_type: str = 'rbox',
) -> list[np.ndarray]:
    """Puts the detections of one image's patches together, and suppresses doubles class by class.

    Args:
        patches: Patches of one image, at any scales. A window of the original image is resized for
            the network only, and predictions are in its own pixels; those in windows of a resized
            image (see :meth:`PatchName.parse`) are brought back.
        num_classes: Number of classes.
        iou_thr: Of two boxes of a class that overlap by more, the one with the lower score goes.
        box_type: ``'rbox'``, ``'qbox'`` or ``'hbox'``.

    Returns:
        For each class float32 (N, box + 1): boxes in pixels of the original image and their scores,
        highest first.
    """
    size = BOX_SIZES[box_type]
    boxes, scores, labels = [], [], []
    for patch in patches:
        place = PatchName.parse(patch.name)
        moved = np.array(patch.boxes, np.float32).reshape(-1, size)
        offset = np.array([place.x, place.y], np.float32)
        # Centre and angle, or corners alone.
        width = 2 if box_type == 'rbox' else size
        moved[:, :width] += np.tile(offset, width // 2)
        # To pixels of the original image; an angle stays.
        moved[:, : 4 if box_type == 'rbox' else size] /= np.float32(place.rate)
        boxes.append(moved)
        scores.append(np.asarray(patch.scores, np.float32).reshape(-1))
        labels.append(np.asarray(patch.labels).reshape(-1))
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    all_labels = np.concatenate(labels)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    merged = []
    for number in range(num_classes):
        chosen = all_labels == number
        if not chosen.any():
            merged.append(np.zeros((0, size + 1), np.float32))
            continue
        kept = _suppress(
            torch.from_numpy(all_boxes[chosen]).to(device),
            torch.from_numpy(all_scores[chosen]).to(device),
            iou_thr,
            box_type,
        )
        merged.append(kept.cpu().numpy())
    return merged


def _suppress(boxes: Tensor, scores: Tensor, iou_thr: float, box_type: str) -> Tensor:
    from mmcv.ops import nms, nms_quadri, nms_rotated  # compiled: only where it is used

    if box_type == 'rbox':
        if len(boxes) > _MANY and boxes.device.type == 'cpu':
            return nms_rotated_sparse(boxes, scores, iou_thr)
        return nms_rotated(boxes, scores, iou_thr)[0]
    if box_type == 'qbox':
        return nms_quadri(boxes, scores, iou_thr)[0]
    return nms(boxes.contiguous(), scores.contiguous(), iou_thr)[0]


def corners(boxes: np.ndarray, box_type: str = 'rbox', order: str = 'best_begin') -> np.ndarray:
    """Four corners of boxes.

    Args:
        boxes: (N, 5), (N, 8) or (N, 4) according to ``box_type``.
        box_type: ``'rbox'``, ``'qbox'`` or ``'hbox'``.
        order: ``'best_begin'``: clockwise on the screen, beginning with the corner that is nearest
            to the upper left one of the enclosing rectangle (all four corners counted), as
            mmrotate 0.3 writes and as DOTA is annotated. ``'rbox'``: as mmrotate 1.x writes, from
            the corner at positive half width and height of the unrotated box, anticlockwise;
            corners that were predicted stay as they are.

    Returns:
        (N, 8): x1, y1, ..., x4, y4.
    """
    boxes = np.asarray(boxes, np.float32)
    if box_type == 'rbox':
        points = _rbox_corners(boxes)
    elif box_type == 'hbox':
        points = boxes[:, [2, 3, 2, 1, 0, 1, 0, 3]].reshape(-1, 4, 2)
    else:
        points = boxes.reshape(-1, 4, 2)
    if order == 'best_begin':
        points = _from_upper_left(points)
    return points.reshape(-1, 8)


def _rbox_corners(boxes: np.ndarray) -> np.ndarray:
    # In torch: its cosine differs from NumPy's in the last bit, and the second decimal may show it.
    tensor = torch.from_numpy(boxes)
    centre, width, height, angle = torch.split(tensor, [2, 1, 1, 1], dim=-1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    along = torch.cat([width / 2 * cos, width / 2 * sin], dim=-1)
    across = torch.cat([-height / 2 * sin, height / 2 * cos], dim=-1)
    points = [centre + along + across, centre + along - across]
    points += [centre - along - across, centre - along + across]
    return torch.stack(points, dim=1).numpy()


def _from_upper_left(points: np.ndarray) -> np.ndarray:
    """Makes corners (N, 4, 2) clockwise on the screen, from the best upper left one."""
    following = np.roll(points, -1, axis=1)
    cross = points[..., 0] * following[..., 1] - following[..., 0] * points[..., 1]
    anticlockwise = cross.sum(axis=1) < 0  # the y axis points down
    points = np.where(anticlockwise[:, None, None], points[:, ::-1], points)
    low, high = points.min(axis=1), points.max(axis=1)
    frame = np.stack(
        [low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)],
        axis=1,
    )
    turned = np.stack([np.roll(points, -begin, axis=1) for begin in range(4)], axis=1)
    distance = np.linalg.norm(turned - frame[:, None], axis=-1).sum(axis=-1)
    return turned[np.arange(len(points)), distance.argmin(axis=1)]


class TaskFiles:
    """The text files of a submission, one a class, written image by image.

    Used as a context; the files appear under their names when it is left without an error.

    Args:
        folder: Where to write ``Task<task>_<class>.txt``.
        classes: Names of the classes: each gets a file, an empty one if need be.
        task: 1, oriented boxes: ``image score x1 y1 x2 y2 x3 y3 x4 y4``. 2, horizontal boxes:
            ``image score xmin ymin xmax ymax``.
        box_type: ``'rbox'``, ``'qbox'`` or ``'hbox'``.
        vertex_order: See :func:`corners`.
        score_digits: Decimals of the scores; ``None`` writes all that float32 has. Rounding to two,
            as mmrotate 1.x does, makes ties of scores that differ, and costs average precision.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        task: int = 1,
        box_type: str = 'rbox',
        vertex_order: str = 'best_begin',
        score_digits: int | None = None,
    ) -> None:
        self.task = task
        self.box_type = box_type
        self.vertex_order = vertex_order
        self.score_digits = score_digits
        self.paths = [folder / f'Task{task}_{name}.txt' for name in classes]
        self._partial = [path.with_name(f'.{path.name}.partial') for path in self.paths]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> TaskFiles:
        self._files = [
            self._stack.enter_context(path.open('w', encoding='utf-8', newline='\n'))
            for path in self._partial
        ]
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stack.close()
        for partial, path in zip(self._partial, self.paths, strict=True):
            if kind is None:
                partial.replace(path)
            else:
                partial.unlink(missing_ok=True)

    def write(self, image: str, merged: Sequence[np.ndarray]) -> int:
        """Adds the detections of one image.

        Args:
            image: Its name.
            merged: For each class (N, box + 1), as :func:`merge_patches` returns them.

        Returns:
            The number of lines that were written.
        """
        for file, found in zip(self._files, merged, strict=True):
            polygons = corners(found[:, :-1], self.box_type, self.vertex_order)
            if self.task == 2:
                points = polygons.reshape(-1, 4, 2)
                polygons = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
            for polygon, score in zip(polygons, found[:, -1], strict=True):
                numbers = ' '.join(f'{value:.2f}' for value in polygon)
                file.write(f'{image} {format_score(score, self.score_digits)} {numbers}\n')
        return sum(len(found) for found in merged)


def format_score(score: float, digits: int | None = None) -> str:
    """A score as text: all digits of its float32 as a Python float has them, or ``digits``."""
    value = float(score)
    return str(value if digits is None else round(value, digits))
