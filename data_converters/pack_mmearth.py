# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packs a split of MMEarth into one memory-mapped file, for mmrsfm.MMEarth(packed=...).

The HDF5 file is compressed tile by tile and layer by layer: reading a sample means a dozen look-ups
and inflating as many chunks. Here it is one copy. The price is space: 280 kB a tile of 64 pixels,
about twice the HDF5 file, unless layers are left out::

    D=data/mmearth/data_1M_v001_64
    python data_converters/pack_mmearth.py $D $D/train.tiles

Statistics, identifiers and products (L1C, L2A) go with the tiles: the file needs no other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrsfm.datasets.mmearth import MMEarth
from mmrsfm.datasets.mmearth_files import LEVEL_FIELD, layer_shapes, read_hdf5_tile, record_type
from mmrsfm.datasets.mmearth_layers import LAYERS
from mmrsfm.datasets.packed_tiles import PackedTileWriter
from mmrsfm.errors import BandMismatchError
from mmrsfm.utils.conversion import errors_end_command
from mmrsfm.utils.progress import progress

_NOT_TARGETS = ('metadata', 'sentinel2_')


def pack_mmearth(
    dataset: MMEarth,
    target: str | Path,
    layers: Sequence[str] | None = None,
    quiet: bool = False,
) -> int:
    """Writes the tiles of a split into one file, in the order of the split.

    Args:
        dataset: Over the HDF5 file.
        target: The file to write; it appears under its name when it is whole.
        layers: Names of the layers; ``None``: those of the file, your own, too, without the masks
            that come with Sentinel-2.
        quiet: No progress line.

    Returns:
        The number of tiles.

    Raises:
        BandMismatchError: The HDF5 file has no such layer.
        CorruptImageError: A tile cannot be read.
    """
    first = dataset.get_data_info(0)
    shapes = layer_shapes(first['img_path'])
    own = [one for one in shapes if one not in LAYERS and not one.startswith(_NOT_TARGETS)]
    every = [name for name in (*LAYERS, *own) if name in shapes]
    names = every if layers is None else list(layers)
    missing = [name for name in names if name not in shapes]
    if missing or not names:
        raise BandMismatchError(
            f'has no layers {missing}, only {sorted(shapes)}', path=first['img_path']
        )
    metadata: dict[str, Any] = {
        'fields': [[name, shapes[name][0].str, list(shapes[name][1])] for name in names],
        'band_stats': first['band_stats'],
        'source': Path(first['img_path']).name,
    }
    record = np.zeros((), record_type(metadata))
    samples = range(len(dataset))
    with PackedTileWriter(target, dtype='uint8', metadata=metadata) as writer:
        for number in samples if quiet else progress(samples, 'pack tiles', len(dataset)):
            info = dataset.get_data_info(number)
            for name, stored in read_hdf5_tile(info['img_path'], info['row'], names).items():
                record[name] = stored
            bytes_of_tile = np.frombuffer(record.tobytes(), np.uint8).reshape(1, 1, -1)
            writer.write(bytes_of_tile, info['tile_id'], extra={LEVEL_FIELD: info['s2_type']})
    return len(dataset)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('data_root', help='folder with <name>.h5 and its JSON files')
    parser.add_argument('target', help='the file to write')
    parser.add_argument('--split', default='train', help='train, val, test, or all [train]')
    parser.add_argument('--name', help='<name>, where it is not that of the folder')
    parser.add_argument('--layers', nargs='+', help='[all, without the masks of Sentinel-2]')
    args = parser.parse_args()
    with errors_end_command():
        split = None if args.split == 'all' else args.split
        dataset = MMEarth(args.data_root, split=split, name=args.name)
        count = pack_mmearth(dataset, args.target, args.layers)
    size = Path(args.target).stat().st_size
    print(f'{args.target}: {count} tiles, {size / 2**20:.1f} MiB')


if __name__ == '__main__':
    main()
