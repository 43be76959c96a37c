# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Says when a folder of label maps has some that belong to no image, which mmseg passes over."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.logging import print_log


def warn_of_lonely_labels(dataset: Any) -> None:
    """Compares the samples of one of mmseg's own datasets with its label folder; logs a warning.

    An image that was lost is one sample fewer, which nobody sees. No error: a folder may hold the
    label maps of several splits. :class:`mmrsfm.GeoTIFFSegDataset` looks itself.

    Args:
        dataset: Any; nothing is said of one that lists its samples otherwise, or has a list.
    """
    lister = getattr(type(dataset), 'load_data_list', None)
    if getattr(lister, '__qualname__', '') != 'BaseSegDataset.load_data_list':
        return
    folder = Path(dataset.data_prefix.get('seg_map_path') or '.')
    images = Path(dataset.data_prefix.get('img_path') or '.')
    suffix = dataset.seg_map_suffix
    if dataset.ann_file or not suffix or not folder.is_dir() or folder == images:
        return
    labels = [one for one in folder.rglob(f'*{suffix}') if not one.name.startswith('.')]
    if len(labels) <= len(dataset):
        return
    used = {Path(dataset.get_data_info(number)['seg_map_path']) for number in range(len(dataset))}
    lonely = sorted(set(labels) - used)
    if lonely:
        print_log(
            f'{type(dataset).__name__}: {len(lonely)} label maps have no image in {images}, '
            f'the first is {lonely[0]}',
            logger='current',
            level=logging.WARNING,
        )
