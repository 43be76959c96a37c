# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Gives the errors of other libraries' datasets and transforms the name of the file they met.

The readers of mmrsfm raise :class:`~mmrsfm.errors.DataError` themselves. Those of MMEngine, mmcv,
mmseg, mmdet and mmpretrain raise what Pillow, OpenCV, NumPy and Python raise, mostly without a
path; which file it was is found from the frames that the error came through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from mmrsfm.errors import CorruptImageError, DataError, DatasetNotFoundError, ImageNotFoundError

# Steps of mmseg and mmdet that read something else than the image, and the key of its path.
_LABEL_KEYS = ('seg_map_path', 'depth_map_path', 'ann_path')
# What lists the samples of a dataset of MMEngine's kind.
_LISTING = ('load_data_list', 'full_init', '_serialize_data', 'filter_data', 'COCOAPI')
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def is_bad_file(error: BaseException) -> bool:
    """Whether an error of a pipeline is one of a file, not of the program.

    A :class:`~mmrsfm.errors.DataError`, any ``OSError`` (Pillow's errors are such), or what mmcv's
    loader raises for an image that OpenCV cannot decode: it asserts so, and OpenCV stops at an
    empty file.
    """
    if isinstance(error, (DataError, OSError)):
        return True
    if isinstance(error, AssertionError):
        return str(error).startswith('failed to load image')
    return type(error).__module__ == 'cv2' and 'imdecode' in str(error)


def as_data_error(error: Exception, path: str | None) -> DataError:
    """An error of :func:`is_bad_file` as a :class:`~mmrsfm.errors.DataError` that names a file.

    Args:
        error: What the pipeline raised.
        path: The image of the sample, for errors that name nothing themselves.
    """
    if isinstance(error, DataError):
        if error.path is not None:
            return error
        return type(error)(error.reason, path, error.band, error.hint)
    named = getattr(error, 'filename', None) or _path_in_pipeline(error) or path
    if isinstance(error, _MISSING):
        return ImageNotFoundError('no such file', path=named)
    return CorruptImageError(f'cannot be read ({_sentence(error)})', path=named)


def listing_error(error: Exception) -> DataError | None:
    """An error of a dataset that lists its samples, as a :class:`~mmrsfm.errors.DataError`.

    Args:
        error: What building the dataset raised.

    Returns:
        ``None`` if it did not come from listing: then it is one of the config or of the program.
    """
    if isinstance(error, _MISSING) and error.filename:
        return DatasetNotFoundError('no such file or folder', path=error.filename)
    for frame in reversed(list(_frames(error))):
        dataset = frame.f_locals.get('self')
        if frame.f_code.co_name not in _LISTING or dataset is None:
            continue
        path = _source(dataset)
        if frame.f_code.co_name == '_serialize_data':
            return no_samples(dataset)
        return DataError(
            f'{type(dataset).__name__} cannot list its samples ({type(error).__name__}: '
            f'{_sentence(error)})',
            path=path,
            hint='Is this the annotation file, and whole?',
        )
    return None


def no_samples(dataset: Any) -> DatasetNotFoundError:
    """The error of a dataset that is empty."""
    kept = getattr(dataset, 'filter_cfg', None)
    return DatasetNotFoundError(
        f'{type(dataset).__name__} finds no samples',
        path=_source(dataset),
        hint='Look at data_root, data_prefix, ann_file and the suffixes of the files'
        + (f', and at filter_cfg={kept}' if kept else ''),
    )


def _source(dataset: Any) -> str | None:
    """The list of a dataset, or else the folder of its images."""
    listed = getattr(dataset, 'ann_file', None)
    prefix = getattr(dataset, 'data_prefix', None)
    root = getattr(dataset, 'data_root', None)
    folders = prefix.values() if isinstance(prefix, Mapping) else (prefix,)
    for candidate in (listed, *folders, root):
        if isinstance(candidate, (str, Path)) and str(candidate):
            return str(candidate)
    return None


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _path_in_pipeline(error: BaseException) -> str | None:
    """The label that was being loaded; an image is what the dataset names."""
    for frame in _frames(error):
        step, results = frame.f_locals.get('self'), frame.f_locals.get('results')
        if isinstance(results, Mapping) and 'Annotations' in type(step).__name__:
            for key in _LABEL_KEYS:
                if isinstance(results.get(key), str):
                    return results[key]
    return None


def _sentence(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
