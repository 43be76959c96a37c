# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts the instance masks of SAMRS (one pickle an image) to COCO json files.

The pickles of the release hold lists, dicts, text, numbers and NumPy arrays. They are read without
running anything that they name: see :func:`load_plain_pickle`.

Example, for SOTA (images/, ins/, train.txt and valid.txt lie in the folder)::

    python data_converters/samrs_pkl_to_coco.py data/samrs/sota data/samrs/sota --dataset sota

SIOR keeps its images as jpg elsewhere: ``--images JPEGImages-trainval --suffix .jpg``.
"""

from __future__ import annotations

import argparse
import io
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mmrsfm.class_tables import SAMRS
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    read_names,
    write_json,
)
from mmrsfm.utils.rgb import image_size

# What NumPy and old protocols write for numbers, arrays and bytes. None of it is imported.
_INERT = {
    'numpy.dtype', 'numpy.ndarray', 'numpy.core.multiarray.scalar',
    'numpy._core.multiarray.scalar', 'numpy.core.multiarray._reconstruct',
    'numpy._core.multiarray._reconstruct', 'numpy.core.numeric._frombuffer',
    'numpy._core.numeric._frombuffer', '_codecs.encode', 'builtins.bytes',
}  # fmt: skip
# Runs in groups of five bits, 48 added, where bit 5 says that the run goes on. pycocotools does not
# check it: a text that ends within a run would make it read and write beyond its memory.
_RUNS = re.compile(r'(?:[P-o]{0,6}[0-O])*')
_SCALARS = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


class _Inert:
    """What a pickle wanted to call, and with what; nothing is called."""

    def __init__(self, name: str, args: tuple) -> None:
        self.name, self.args, self.state = name, args, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, text and numbers; classes and functions are refused or kept inert."""

    def find_class(self, module: str, name: str) -> Callable[..., _Inert]:
        # Old protocols name modules as Python 2 did.
        full = f'{"builtins" if module == "__builtin__" else module}.{name}'
        if full not in _INERT:
            raise pickle.UnpicklingError(f'names {full}, which is no plain data')
        # A fresh function each time: whatever a pickle does to it dies with this file.
        return lambda *args: _Inert(full, args)


def load_plain_pickle(data: bytes) -> Any:
    """Unpickles lists, dicts, tuples, text, bytes and numbers, and runs nothing.

    NumPy scalars become Python numbers; arrays, which the masks do not need, become ``None``.

    Args:
        data: A pickle of any protocol.

    Returns:
        The content.

    Raises:
        pickle.UnpicklingError: If it is damaged, or names anything else.
    """
    try:
        return _settled(_PlainUnpickler(io.BytesIO(data)).load(), {})
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # Damaged pickles raise nearly anything.
        raise pickle.UnpicklingError(f'is damaged ({type(error).__name__}: {error})') from error


def _settled(value: Any, done: dict[int, Any]) -> Any:
    """Replaces what is inert; ``done`` keeps shared containers from being walked twice."""
    kind = type(value)
    if kind in (str, bytes, int, float, bool, type(None)):
        return value
    if id(value) in done:
        return done[id(value)]
    if kind in (list, tuple):
        result = kind(_settled(item, done) for item in value)
    elif kind is dict:
        result = {_settled(key, done): _settled(item, done) for key, item in value.items()}
    elif kind is _Inert:
        result = _built(value)
    else:
        raise pickle.UnpicklingError(f'holds a {kind.__name__}, which is no plain data')
    done[id(value)] = result
    return result


def _built(value: _Inert) -> Any:
    if value.name == 'builtins.bytes':
        return b''
    if value.name == '_codecs.encode':
        # Bytes, in a protocol that has none.
        text, encoding = value.args
        if encoding != 'latin1':
            raise pickle.UnpicklingError(f'encodes bytes as {encoding!r}')
        return text.encode('latin1')
    if value.name.endswith('.scalar'):
        dtype, raw = value.args
        code = dtype.args[0]
        if code not in _SCALARS:
            raise pickle.UnpicklingError(f'holds a NumPy scalar of kind {code!r}')
        order = dtype.state[1] if dtype.state and dtype.state[1] in '<>' else '='
        raw = _built(raw) if isinstance(raw, _Inert) else raw
        return np.frombuffer(raw, dtype=np.dtype(order + code), count=1)[0].item()
    return None  # an array


def samrs_to_coco(
    root: str | Path,
    target: str | Path,
    dataset: str,
    splits: Sequence[str] = ('train', 'valid'),
    images: str = 'images',
    masks: str = 'ins',
    suffix: str = '.png',
    missing: str = 'raise',
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, tuple[int, int]]:
    """Writes ``{target}/{dataset}_rbb_{split}_ins_segmentation.json`` for each split.

    Boxes and areas come from the masks, category numbers begin at 0, in the order of SAMRS.

    Args:
        root: Folder with the lists ``{split}.txt``, the images and the pickles.
        target: Folder for the json files.
        dataset: ``'sota'``, ``'sior'`` or ``'fast'``: which class table the labels refer to.
        splits: Names of the lists.
        images: Folder of the images below ``root``; only their sizes are read.
        masks: Folder of the pickles below ``root``.
        suffix: Suffix of the images.
        missing: An image without a pickle: ``'raise'``, or ``'empty'`` for an image without
            instances.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Numbers of images and of instances by split.

    Raises:
        ConfigError: For an unknown ``dataset`` or ``missing``.
        DatasetNotFoundError: If a list, an image or a pickle is missing.
        DataError: If a pickle is damaged, unsafe or not of this form; it is named.
    """
    root, target = Path(root), Path(target)
    if dataset not in SAMRS:
        raise ConfigError(f'dataset is one of {tuple(SAMRS)}, got {dataset!r}')
    if missing not in ('raise', 'empty'):
        raise ConfigError(f"missing is 'raise' or 'empty', got {missing!r}")
    classes = SAMRS[dataset]

    def read(name: str) -> tuple[dict, list[dict]]:
        path = root / masks / f'{name}.pkl'
        width, height = image_size(root / images / f'{name}{suffix}')
        image = {
            'file_name': f'{name}{suffix}', 'height': height, 'width': width,
            'segm_file': path.name,
        }  # fmt: skip
        if not path.is_file():
            if missing == 'empty':
                return image, []
            raise DatasetNotFoundError(
                'there is no such pickle',
                path=path,
                hint="missing='empty' (--missing empty) keeps such images, without instances",
            )
        try:
            objects = load_plain_pickle(path.read_bytes())
        except pickle.UnpicklingError as error:
            raise DataError(str(error), path=path) from error
        if not isinstance(objects, list):
            raise DataError(f'holds a {type(objects).__name__}, not a list', path=path)
        size = (height, width)
        return image, [
            _annotation(one, index, path, size, len(classes)) for index, one in enumerate(objects)
        ]

    counts = {}
    for split in splits:
        names = read_names(root / f'{split}.txt')
        results = each(read, names, f'{dataset} {split}', workers, quiet)
        flat = []
        for image_id, (image, found) in enumerate(results):
            image['id'] = image_id
            for annotation in found:
                flat.append({**annotation, 'image_id': image_id, 'id': len(flat)})
        content = {
            'images': [image for image, _ in results],
            'categories': [{'id': index, 'name': name} for index, name in enumerate(classes)],
            'annotations': flat,
        }
        write_json(target / f'{dataset}_rbb_{split}_ins_segmentation.json', content)
        counts[split] = (len(names), len(flat))
    return counts


def _annotation(
    one: Any, index: int, path: Path, size: tuple[int, int], classes: int
) -> dict[str, Any]:
    where = f'object {index}'
    if not isinstance(one, dict) or not {'label', 'mask'} <= set(one):
        raise DataError(f'{where} has no label and mask', path=path)
    label, rle = one['label'], one['mask']
    if type(label) is not int or not 0 <= label < classes:
        raise DataError(f'{where}: the label {label!r} is not in 0 .. {classes - 1}', path=path)
    if not isinstance(rle, dict) or not {'size', 'counts'} <= set(rle):
        raise DataError(f'{where}: the mask is no run-length encoding', path=path)
    counts = rle['counts']
    if not isinstance(rle['size'], (list, tuple)) or tuple(rle['size']) != size:
        raise DataError(f'{where}: a mask of {rle["size"]} in an image of {size}', path=path)
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != np.prod(size):
            raise DataError(f'{where}: the counts of the mask do not fill {size}', path=path)
        counts = coco_mask.frPyObjects({'size': list(size), 'counts': counts}, *size)['counts']
    if isinstance(counts, bytes):
        # JSON has no bytes, and the text of a run-length encoding is ASCII.
        counts = counts.decode('ascii', errors='replace')
    if not isinstance(counts, str) or not _RUNS.fullmatch(counts):
        raise DataError(f'{where}: the counts of the mask are no text of runs', path=path)
    rle = {'size': list(size), 'counts': counts}
    return {
        'iscrowd': 0,
        'category_id': label,
        'bbox': coco_mask.toBbox(rle).tolist(),
        'area': int(coco_mask.area(rle)),
        'segmentation': rle,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', help='folder with lists, images and pickles')
    parser.add_argument('target', help='folder for the json files')
    parser.add_argument('--dataset', required=True, choices=list(SAMRS))
    parser.add_argument('--splits', nargs='+', default=['train', 'valid'], help='names of lists')
    parser.add_argument('--images', default='images', help='folder of the images below root')
    parser.add_argument('--masks', default='ins', help='folder of the pickles below root')
    parser.add_argument('--suffix', default='.png', help='suffix of the images')
    parser.add_argument('--missing', default='raise', choices=['raise', 'empty'])
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        counts = samrs_to_coco(**vars(args))
    for split, (images, instances) in counts.items():
        print(f'{args.dataset} {split}: {images} images, {instances} instances')


if __name__ == '__main__':
    main()
