# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of SAMRS: where they lie, its pickles of instances, its rotated boxes.

Wang et al., "SAMRS: Scaling-up Remote Sensing Segmentation Dataset with Segment Anything Model",
NeurIPS 2023 Datasets and Benchmarks, arXiv 2305.02034.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.utils.dior import read_dior_objects
from mmrsfm.utils.dota import DOTAObject, label_of, read_dota_objects
from mmrsfm.utils.plain_pickle import load_plain_pickle
from mmrsfm.utils.rle import read_runs

# Value of the label maps for what is no object.
BACKGROUND = 255


class Layout(NamedTuple):
    """Where a part of SAMRS keeps its files, below its root.

    Attributes:
        images: Folder of the images.
        suffix: Suffix of the images.
        classes: Folder of the label maps (PNG: number of the class, or 255).
        instances: Folder of the pickles.
        rotated: Folder of the rotated boxes.
        rotated_suffix: ``'.txt'`` (DOTA's form) or ``'.xml'`` (DIOR-R's).
    """

    images: str = 'trainval/images'
    suffix: str = '.png'
    classes: str = 'trainval/rhbox_segs_init/gray'
    instances: str = 'trainval/rhbox_segs_init/ins'
    rotated: str = 'trainval/rbbtxts'
    rotated_suffix: str = '.txt'


# As MTP reads them; it has no folder of SIOR's pickles: that one is of SAMRS's own scripts
# ("Generate Dataset/statistic.py"). Data sets of one's own have the layout of SOTA.
LAYOUTS = {
    'sota': Layout(),
    'sior': Layout(
        'JPEGImages-trainval',
        '.jpg',
        'hbox_segs_trainvaltest_init/gray',
        'hbox_segs_trainvaltest_init/ins',
        'Annotations/Oriented Bounding Boxes',
        '.xml',
    ),
    'fast': Layout(),
}


def annotation_file(name: str, split: str) -> str:
    """Name of the COCO json of a list: ``{name}_rbb_{split}_ins_segmentation.json``."""
    return f'{name}_rbb_{split}_ins_segmentation.json'


def read_instances(path: str | Path, size: tuple[int, int], classes: int) -> list[dict[str, Any]]:
    """Reads one pickle of instances, without running anything that it names.

    Args:
        path: The pickle: a list of dicts with ``label`` (from 0) and ``mask`` (a COCO run-length
            encoding); what else they hold (``bbox``, ``category``, ``size``) is not looked at.
        size: (H, W) of the image.
        classes: Number of classes.

    Returns:
        ``label`` and ``mask`` of each: ``size`` [H, W] and ``counts`` as COCO's text or a list.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is damaged, unsafe or not of this form; the object is named.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError('there is no such pickle', path=path)
    try:
        objects = load_plain_pickle(path.read_bytes())
    except pickle.UnpicklingError as error:
        raise DataError(str(error), path=path) from error
    if not isinstance(objects, list):
        raise DataError(f'holds a {type(objects).__name__}, not a list', path=path)
    return [_checked(one, index, path, size, classes) for index, one in enumerate(objects)]


def _checked(
    one: Any, index: int, path: Path, size: tuple[int, int], classes: int
) -> dict[str, Any]:
    where = f'object {index}'
    if not isinstance(one, dict) or not {'label', 'mask'} <= set(one):
        raise DataError(f'{where} has no label and mask', path=path)
    label, rle = one['label'], one['mask']
    if type(label) is not int or not 0 <= label < classes:
        raise DataError(f'{where}: the label {label!r} is not in 0 .. {classes - 1}', path=path)
    try:
        read_runs(rle, size)
    except ValueError as error:
        raise DataError(f'{where}: {error}', path=path) from error
    counts = rle['counts']
    if isinstance(counts, bytes):
        # JSON has no bytes, and the text of a run-length encoding is ASCII.
        counts = counts.decode('ascii')
    return {'label': label, 'mask': {'size': list(size), 'counts': counts}}


def read_rotated(path: str | Path, labels: Mapping[str, int]) -> list[tuple[int, DOTAObject]]:
    """Reads the rotated boxes of an image, as text in DOTA's form or as DIOR-R's XML.

    Args:
        path: The file; its suffix says which of the two it is.
        labels: Number of each class.

    Returns:
        Number of the class of each object, and the object, in the order of the file.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it cannot be read, or names an unknown class.
    """
    if Path(path).suffix.lower() != '.xml':
        return [(label_of(one, labels, path), one) for one in read_dota_objects(path)]
    found = read_dior_objects(path)
    for one in found:
        if one.name not in labels:
            raise DataError(
                f'object {one.line} names the class {one.name!r}, which is not one of the '
                f'{len(labels)} classes',
                path,
            )
    return [(labels[one.name], one) for one in found]
