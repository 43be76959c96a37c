# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packs the images of any dataset into one memory-mapped file, for mmrsfm.PackedTileDataset.

The dataset is that of a data loader of a config; its pipeline's loading transform reads the images,
without scale and offset, which the pipeline applies again when it reads the packed tiles::

    python data_converters/pack_tiles.py CONFIG data/benv2_s1_train.tiles --loader train_dataloader
    python data_converters/pack_tiles.py CONFIG data/benv2_s1_val.tiles --loader val_dataloader
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from mmrsfm.datasets.packed_tiles import PackedTileWriter
from mmrsfm.datasets.transforms.geometry import resample_image
from mmrsfm.datasets.transforms.load_modalities import LoadModalities
from mmrsfm.datasets.transforms.load_multi_band_image import LoadMultiBandImage
from mmrsfm.engine.run_config import load_config, register_scope
from mmrsfm.errors import ConfigError, DataError, ImageSizeError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import errors_end_command
from mmrsfm.utils.progress import progress

_KNOWN = ('country', 'season', 'sensor', 'modalities')  # of what a sample says about itself


def pack_tiles(
    dataset: Any,
    target: str | Path,
    dtype: str | None = None,
    size: int | None = None,
    skip_bad: bool = False,
    workers: int = 1,
    quiet: bool = False,
) -> tuple[int, list[str]]:
    """Writes the images and labels of a dataset into one file.

    Args:
        dataset: A dataset whose pipeline begins with :class:`mmrsfm.LoadMultiBandImage`, or with
            :class:`mmrsfm.LoadModalities`: the bands of its modalities follow one another, and one
            that is missing is NaN.
        target: The file to write; it appears under its name when it is whole.
        dtype: Type of the values; ``None``: as they are loaded.
        size: Edge in pixels that images are resampled to (bilinear). ``None``: they are of one
            size.
        skip_bad: Whether images that cannot be read are left out; otherwise they end the work.
        workers: Number of threads that read.
        quiet: No progress line.

    Returns:
        The number of tiles, and the messages of the images that were left out.

    Raises:
        ConfigError: The pipeline begins otherwise, or values do not fit ``dtype``.
        DataError: An image cannot be read, or has another size.
    """
    load = _loader(dataset, dtype)
    bad: list[str] = []

    def read(number: int) -> dict[str, Any] | DataError:
        try:
            return load.transform(dataset.get_data_info(number))
        except DataError as error:
            if not skip_bad:
                raise
            return error

    numbers = range(len(dataset))
    classes = dataset.metainfo.get('classes')
    with (
        ThreadPoolExecutor(max(workers, 1)) as pool,
        PackedTileWriter(target, classes=classes, dtype=dtype) as writer,
    ):
        samples = _in_order(pool, read, numbers, 4 * max(workers, 1))
        for sample in samples if quiet else progress(samples, 'pack tiles', len(numbers)):
            if isinstance(sample, DataError):
                bad.append(str(sample))
                continue
            writer.band_names = writer.band_names or sample.get('band_names')
            name = sample.get('sample_name') or _stem(sample['img_path'])
            known = {key: sample[key] for key in _KNOWN if key in sample}
            label = sample.get('gt_label')
            labels = [label] if np.ndim(label) == 0 and label is not None else label
            try:
                writer.write(_tile(sample, size), name, labels, known)
            except ImageSizeError as error:  # of the writer, which does not know the file
                raise ImageSizeError(error.reason, sample['img_path'], hint=error.hint) from error
        count = len(writer)
    return count, bad


def _loader(dataset: Any, dtype: str | None) -> LoadMultiBandImage | LoadModalities:
    pipeline = getattr(dataset, 'pipeline', None)  # of what concatenates, none
    transforms = getattr(pipeline, 'transforms', None)
    load = transforms[0] if transforms else None
    if isinstance(load, LoadModalities):
        load.invalid = 'mean'  # with a mask
        load.to_float32 = dtype is None or dtype.startswith('float')
        parts = [one.load for one in load._modalities]
        for part in parts:
            part.to_float32 = load.to_float32
    elif isinstance(load, LoadMultiBandImage):
        parts = [load]
    else:
        raise ConfigError(
            'pack_tiles: the pipeline of the dataset must begin with mmrsfm.LoadMultiBandImage or '
            'mmrsfm.LoadModalities'
        )
    for part in parts:
        part.scale = part.offset = None  # stored numbers: the pipeline scales what it reads
    return load


def _in_order(pool: ThreadPoolExecutor, read: Any, numbers: range, ahead: int) -> Iterator[Any]:
    """Results in order, with only a few images in memory."""
    waiting = iter(numbers)
    futures = [pool.submit(read, number) for number in islice(waiting, ahead)]
    while futures:
        yield futures.pop(0).result()
        futures += [pool.submit(read, number) for number in islice(waiting, 1)]


def _tile(sample: dict[str, Any], size: int | None) -> np.ndarray:
    image, valid = sample['img'], sample.get('valid_mask')
    if valid is not None:
        if not np.issubdtype(image.dtype, np.floating):
            raise ConfigError(
                f'{sample["img_path"]}: {image.dtype} cannot say which pixels are invalid; load '
                'with to_float32=True'
            )
        image = np.where(valid, image, np.float32(np.nan))
    if size is not None and image.shape[:2] != (size, size):
        image = resample_image(image, (size, size), 'bilinear', True, keep_dtype=True)
    return image.transpose(2, 0, 1)


def _stem(path: Any) -> str:
    return Path(path[0] if isinstance(path, (list, tuple)) else path).stem


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config of a model, or of a dataset alone')
    parser.add_argument('target', help='the file to write, e.g. data/benv2_s1_train.tiles')
    parser.add_argument('--loader', default='train_dataloader', help='[train_dataloader]')
    parser.add_argument('--dtype', help='type of the values [as they are loaded]')
    parser.add_argument('--size', type=int, help='resample to this edge in pixels')
    parser.add_argument('--skip-bad', action='store_true', help='leave unreadable images out')
    parser.add_argument('--workers', type=int, default=4, help='threads that read [4]')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='overrides')
    args = parser.parse_args()
    with errors_end_command():
        config = load_config(args.config, args.cfg_options)
        scope = config.get('default_scope', 'mmpretrain')
        register_scope(scope)
        init_default_scope(scope)
        loader = config.get(args.loader)
        if not loader:
            raise ConfigError(f'{args.config} has no {args.loader}')
        if 'type' not in loader.get('dataset', {}):
            raise ConfigError(f'{args.config}: {args.loader}.dataset names no type')
        dataset = DATASETS.build(loader.dataset)
        count, bad = pack_tiles(
            dataset, args.target, args.dtype, args.size, args.skip_bad, args.workers
        )
    size = Path(args.target).stat().st_size
    print(f'{args.target}: {count} tiles, {size / 2**20:.1f} MiB; {len(bad)} left out')
    for line in bad[:10]:
        print(f'  {line}')


if __name__ == '__main__':
    main()
