# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loads the labels of a sample: classes of all pixels, instances, rotated boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes
from pycocotools import mask as coco_mask

from mmrsfm.datasets.multi_task.windowed_masks import WindowedMasks
from mmrsfm.datasets.raster import read_raster
from mmrsfm.datasets.rotated.quadrilaterals import is_degenerate
from mmrsfm.errors import BandMismatchError, ConfigError, DataError, ImageSizeError
from mmrsfm.registry import TRANSFORMS
from mmrsfm.utils.samrs import BACKGROUND, read_instances, read_rotated

TASKS = ('semantic', 'instance', 'rotated')


@TRANSFORMS.register_module()
class LoadMultiTaskAnnotations(BaseTransform):
    """Decodes what :class:`mmrsfm.SAMRSDataset` knows of a sample, in the worker that reads it.

    Required keys: ``tasks`` and ``classes`` of the data set, and by task: ``seg_map_path`` and
    ``background``; ``instances`` (``mask``: COCO's run-length encoding or polygons) or
    ``instances_path`` (a pickle of SAMRS) and ``ori_shape``; ``rotated_path``, ``diff_thr`` and
    ``skip_degenerate``.

    Added keys: see :mod:`mmrsfm.datasets.multi_task.alignment`. ``gt_seg_map`` is uint8: with
    ``background`` 0 is no object and k + 1 class k, as in MTP; without, k is class k, and what is
    no object has the label 255, which no loss sees.

    Args:
        tasks: Of the sample's tasks, those whose labels are loaded. ``None``: all.

    Raises:
        DataError: A file is missing, broken, of another size than the image, or names a class that
            the data set does not have; it is named.
    """

    def __init__(self, tasks: Sequence[str] | None = None) -> None:
        if tasks is not None and (unknown := set(tasks) - set(TASKS)):
            raise ConfigError(f'tasks are of {TASKS}, got {sorted(unknown)}')
        self.tasks = None if tasks is None else tuple(tasks)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads; see the class."""
        for task in results['tasks']:
            if self.tasks is None or task in self.tasks:
                getattr(self, f'_load_{task}')(results)
        return results

    def _load_semantic(self, results: dict[str, Any]) -> None:
        path = results['seg_map_path']
        stored = read_raster(path).array
        if stored.shape[2] != 1 or stored.dtype != np.uint8:
            raise BandMismatchError(
                f'a label map has one band of 8 bits, got {stored.shape[2]} of {stored.dtype}',
                path=path,
            )
        stored = stored[..., 0]
        _check_size(stored.shape, results, path)
        count = len(results['classes'])
        # 254 stands for values that are no class; there are fewer classes than that.
        table = np.full(256, 254, np.uint8)
        offset = int(results['background'])
        table[:count] = np.arange(count) + offset
        table[BACKGROUND] = 0 if results['background'] else 255
        label = table[stored]
        if (label == 254).any():
            values = np.unique(stored[label == 254])[:8].tolist()
            raise DataError(
                f'the label map holds {values}; the classes are 0..{count - 1}, and {BACKGROUND} '
                'where there is no object',
                path=path,
            )
        results['gt_seg_map'] = label
        if 'gt_seg_map' not in results.setdefault('seg_fields', []):
            results['seg_fields'].append('gt_seg_map')

    def _load_instance(self, results: dict[str, Any]) -> None:
        size = tuple(results['ori_shape'][:2])
        source = results.get('instances_path')
        if source is None:
            source = results['img_path']
            found = results['instances']
        else:
            read = read_instances(source, size, len(results['classes']))
            found = [{'mask': one['mask'], 'bbox_label': one['label']} for one in read]
        stated = (results.get('height', size[0]), results.get('width', size[1]))
        if 'instances_path' not in results and stated != size:
            # mmdet has left out already what lies beyond the size that the json states.
            raise ImageSizeError(
                f'the list of instances says {stated[0]} x {stated[1]} pixels (H x W), the image '
                f'has {size[0]} x {size[1]}',
                path=source,
            )
        masks = None
        bare = sum(one.get('mask') is None for one in found)
        if 0 < bare < len(found):
            raise DataError(
                f'{bare} of its {len(found)} instances have no mask',
                path=source,
                hint='An image has masks of all of them, or of none (boxes alone)',
            )
        if not bare:
            try:
                masks = WindowedMasks.from_rles([_as_rle(one['mask'], size) for one in found], size)
            except (TypeError, ValueError) as error:
                raise DataError(str(error), path=source) from error
        if masks is not None and 'instances_path' in results:
            # A json holds boxes, and its readers leave out what has no area.
            filled = np.flatnonzero(masks.areas > 0)
            masks, found = masks[filled], [found[i] for i in filled]
            boxes = masks.boxes()
        else:
            boxes = np.array([one['bbox'] for one in found], np.float32).reshape(-1, 4)
            if not np.isfinite(boxes).all():
                raise DataError('a box of its instances is not finite', path=source)
        if masks is not None:
            results['gt_masks'] = masks
        results['gt_bboxes'] = HorizontalBoxes(torch.as_tensor(boxes))
        results['gt_bboxes_labels'] = np.array([one['bbox_label'] for one in found], np.int64)
        ignored = [bool(one.get('ignore_flag')) for one in found]
        results['gt_ignore_flags'] = np.array(ignored, bool)

    def _load_rotated(self, results: dict[str, Any]) -> None:
        labels = {name: label for label, name in enumerate(results['classes'])}
        found = [
            (label, one)
            for label, one in read_rotated(results['rotated_path'], labels)
            if not (results['skip_degenerate'] and is_degenerate(one.corners))
        ]
        corners = torch.tensor([one.corners for _, one in found], dtype=torch.float32)
        if found:
            boxes = QuadriBoxes(corners.reshape(-1, 8)).convert_to('rbox')
        else:
            boxes = RotatedBoxes(torch.zeros(0, 5))
        results['gt_rboxes'] = boxes
        results['gt_rboxes_labels'] = np.array([label for label, _ in found], np.int64)
        results['gt_r_ignore_flags'] = np.array(
            [one.difficulty > results['diff_thr'] for _, one in found], bool
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}(tasks={self.tasks})'


def _check_size(shape: tuple[int, ...], results: dict[str, Any], path: str) -> None:
    size = results.get('ori_shape')
    if size is not None and tuple(size[:2]) != tuple(shape):
        raise ImageSizeError(
            f'the label map has {shape[0]} x {shape[1]} pixels (H x W), its image '
            f'{results["img_path"]} has {size[0]} x {size[1]}',
            path=path,
        )


def _as_rle(mask: Any, size: tuple[int, int]) -> Any:
    """A run-length encoding of what COCO files hold: one, or a list of polygons (x, y, ...).

    Raises:
        ValueError: If a polygon is none. pycocotools does not look: it writes beyond its memory for
            coordinates that are no numbers or far away, which ends the worker without a word.
    """
    if not isinstance(mask, list):
        return mask
    rings = [np.asarray(ring, np.float64) for ring in mask]
    reach = 10 * max(size)
    for ring in rings:
        if ring.ndim != 1 or ring.size < 6 or ring.size % 2:
            raise ValueError('a polygon of a mask is no list of x and y of three or more corners')
        if not (np.abs(ring) <= reach).all():  # NaN is not, either
            raise ValueError(
                f'a polygon of a mask lies far outside of the image of {size[0]} x {size[1]} '
                'pixels: its coordinates are no pixels'
            )
    merged = coco_mask.merge(coco_mask.frPyObjects([ring.tolist() for ring in rings], *size))
    return {'size': list(size), 'counts': merged['counts']}
