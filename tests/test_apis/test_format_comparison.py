# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Formats of files side by side; no time is asserted."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config

from mmrsfm.apis import loader_step
from mmrsfm.apis.format_comparison import FormatComparison, describe, tiles_of
from mmrsfm.apis.loader_step import LoaderStep
from mmrsfm.apis.tile_formats import FORMATS, choose_formats
from mmrsfm.errors import ConfigError, MissingDependencyError
from tests.test_datasets.imagery import write_tif

EVERYWHERE = ['geotiff', 'geotiff-deflate', 'hdf5', 'hdf5-gzip', 'zarr', 'zarr-zstd', 'packed']


@pytest.fixture
def cfg(tmp_path):
    """Two images of three bands, 40 x 48 pixels, and a pipeline that scales them."""
    for number in range(2):
        image = np.arange(3 * 40 * 48, dtype=np.uint16).reshape(40, 48, 3) + number
        write_tif(tmp_path / 'images' / f'{number}.tif', image.transpose(2, 0, 1))
    load = dict(type='mmrsfm.LoadMultiBandImage', scale=1e-4)
    dataset = dict(
        type='mmrsfm.TileDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images'),
        pipeline=[load, dict(type='mmrsfm.PackInputs')],
    )
    return Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='mmrsfm.EpochSampler'),
                dataset=dataset,
            ),
        )
    )


def test_tiles_are_the_stored_numbers(cfg):
    tiles = tiles_of(cfg, 5, 24)
    assert {(tile.shape, tile.dtype.name) for tile in tiles} == {((3, 24, 24), 'uint16')}
    assert tiles[0][0, 0, 0] == 0 and tiles[1][0, 0, 0] == 1  # of the images in turn
    assert tiles[2][0, 0, 0] == (48 - 24) * 3 and tiles[4][0, 0, 0] == (40 - 24) * 48 * 3
    assert [tile.shape for tile in tiles_of(cfg, 3)] == [(3, 40, 48)] * 3
    with pytest.raises(ConfigError, match='has 40 pixels only'):
        tiles_of(cfg, 2, 41)


def test_every_format_reads_what_it_wrote(cfg, tmp_path):
    comparison = FormatComparison(tiles_of(cfg, 4, 16), choose_formats(EVERYWHERE), tmp_path)
    comparison.run()
    comparison.run()
    figures = comparison.figures()
    assert figures['rounds'] == 2 and list(figures['formats']) == EVERYWHERE
    assert figures['formats']['geotiff']['speedup'] == 1.0
    assert figures['formats']['packed']['mib'] > 3 * 16 * 16 * 2 / 2**20
    assert '| zarr-zstd |' in describe(figures)
    folder = Path(comparison._folder.name)
    comparison.close()
    assert not folder.exists()


def test_a_format_that_reads_something_else_is_no_candidate(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(FORMATS['hdf5'], 'read', lambda self, number: self._reader['tiles'][0] + 1)
    with pytest.raises(ConfigError, match='read otherwise than written'):
        FormatComparison(tiles_of(cfg, 2, 16), choose_formats(['hdf5']), tmp_path)


@pytest.mark.parametrize('name', ['lmdb', 'litdata'])
def test_formats_of_packages(cfg, tmp_path, name):
    pytest.importorskip(name)
    FormatComparison(tiles_of(cfg, 3, 16), choose_formats([name]), tmp_path).close()


def test_what_is_not_there_is_named(monkeypatch):
    with pytest.raises(ConfigError, match='choose from'):
        choose_formats(['tfrecord'])
    monkeypatch.setitem(__import__('sys').modules, 'lmdb', None)
    with pytest.raises(MissingDependencyError, match='pip install lmdb'):
        choose_formats(['lmdb'])
    if importlib.util.find_spec('litdata') is None:
        assert 'litdata' not in [cls.name for cls in choose_formats()]


def test_batches_that_were_read_ahead_are_not_timed(cfg, monkeypatch):
    taken = []
    step = LoaderStep(cfg)
    step._batches = iter(lambda: taken.append(1) or 0, 1)
    step.run()
    assert len(taken) == 1
    step._ahead = 4
    monkeypatch.setattr(loader_step, '_SECONDS', 0.0)
    step.run()
    assert len(taken) == 1 + 4 + 4
    # Workers of another loader fill their queues meanwhile: not only a moment is timed.
    clock = SimpleNamespace(perf_counter=lambda: 0.1 * len(taken))
    monkeypatch.setattr(loader_step, 'time', clock)
    monkeypatch.setattr(loader_step, '_SECONDS', 1.95)
    step.run()
    assert len(taken) == 9 + 4 + 20
