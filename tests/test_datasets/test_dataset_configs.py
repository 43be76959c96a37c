# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every base config of imagery with any bands: its pipelines run, and fit its data preprocessor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope

from mmrsfm.datasets import AddressedCollate
from mmrsfm.randomness import seeded
from mmrsfm.registry import DATASETS, MODELS
from tests.test_datasets.imagery import numbers, write_tif

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets'
CONFIGS = sorted(path.name for path in FOLDER.glob('*.py'))


@pytest.mark.parametrize('name', CONFIGS)
def test_pipelines_fit_the_data_preprocessor(tmp_path, name):
    config = Config.fromfile(FOLDER / name)
    if 'data_preprocessor' not in config:
        pytest.skip('only inherited from')
    if not config.data_preprocessor.get('type', '').startswith('mmrsfm.MultiBand'):
        pytest.skip('of a task library, for images of 8 bits: test_mtp_runs.py, test_demo_jobs.py')
    if 'mmrsfm.LoadMMEarth' in config.pretty_text:
        pytest.skip('of tiles in one file: test_mp_mae_pretraining_runs.py, test_mpmae_job.py')
    several = 'mmrsfm.LoadModalities' in config.pretty_text
    if several or config.data_preprocessor.get('band_names') is None:
        pytest.skip('of several modalities, or bands without names: test_mars_runs.py')
    seg = 'Seg' in config.data_preprocessor.type
    init_default_scope('mmseg' if seg else 'mmpretrain')
    preprocessor = MODELS.build(config.data_preprocessor)
    bands = preprocessor.contract.band_names
    # Files that name no more bands than they have; EuroSAT's keep theirs in another order.
    # The tiles of the demonstrations are square, and may be turned.
    width = 96 if 'demo' in name else 80
    image = write_tif(tmp_path / 'a.tif', numbers(len(bands), 96, width), names=bands)
    label = write_tif(tmp_path / 'b.tif', np.zeros((1, 96, width), 'uint8'))
    pair = {'pair_paths': [image, image]} if 'mmrsfm.LoadImagePair' in config.pretty_text else {}
    for phase in ('train', 'val', 'test'):
        loader = config.get(f'{phase}_dataloader')
        if loader is None:
            continue
        if 'type' in loader.dataset:
            assert DATASETS.get(loader.dataset.type) is not None
        dataset = loader.dataset
        dataset = dataset if 'pipeline' in dataset else dataset.dataset  # a part of the labels
        pipeline = Compose(dataset.pipeline)
        info = {'img_path': image, 'seg_map_path': label, 'gt_label': 0, 'band_names': bands}
        items = [pipeline({**info, **pair, 'seg_fields': []}) for _ in range(2)]
        batch = preprocessor(AddressedCollate(default_collate)(items), training=phase == 'train')
        images = batch['inputs'] if pair else [batch['inputs']]
        assert len(images) == (2 if pair else 1)
        assert all(image.shape[:2] == (2, len(bands)) for image in images)
        for sample in batch['data_samples']:
            assert tuple(sample.band_names) == bands
            if 'pretrain' in name:  # mixing two images takes one mask, two views take two
                assert sample.mask_noise.shape[0] == (1 if 's1' in name else 2)


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'pretrain' in name])
def test_pretraining_states_the_contract_of_its_checkpoints(name):
    preprocessor = Config.fromfile(FOLDER / name).data_preprocessor
    stated = MODELS.build(preprocessor).contract.to_dict()
    wanted = {'band_names', 'sensor', 'scale', 'mean', 'std', 'licence'}
    assert wanted <= set(stated), 'fields of the contract that the config leaves open'


@pytest.mark.parametrize('name', ['resisc45_256px.py', 'eurosat_rgb_64px.py', 'whu_rs19_256px.py'])
def test_benchmarks_do_not_claim_the_sensor_of_the_pretraining(name):
    contract = MODELS.build(Config.fromfile(FOLDER / name).data_preprocessor).contract
    assert contract.sensor is None
    assert contract.scale == 1.0


WIRE = {  # docs/data_speed.md: of the places in the pipeline, what sends integers
    'fmow_rgb_pretrain_128px.py': (torch.uint8, {'3.keep_dtype': True}),
    'mars16m_512px.py': (
        torch.uint16,
        {'0.to_float32': False, '0.dtype': 'uint16', '1.keep_dtype': True},
    ),
}


@pytest.mark.parametrize('name', WIRE)
def test_integers_on_the_wire(tmp_path, name):
    """As published, and as integers: after the data preprocessor, half a count apart at most."""
    init_default_scope('mmpretrain')
    kind, options = WIRE[name]
    config = Config.fromfile(FOLDER / name)
    preprocessor = MODELS.build(config.data_preprocessor)
    rng = np.random.default_rng(0)
    rgb = write_tif(tmp_path / 'rgb.tif', rng.integers(60, 200, (3, 140, 150)).astype('uint8'))
    infos = [{'img_path': rgb, 'band_names': ('R', 'G', 'B')}] * 2
    if 'mars' in name:  # radar of 8 and of 16 bits in one batch
        infos = []
        for sensor, most, dtype in (('umbra', 255, 'uint8'), ('capella', 65535, 'uint16')):
            sar = rng.integers(0, most, (1, 140, 150)).astype(dtype)
            path = write_tif(tmp_path / f'{sensor}.tif', sar)
            infos.append({'modality_paths': {'rgb': rgb, 'sar': path}, 'sensor': sensor})
    found = []
    for changes in ({}, options):
        keys = {f'train_dataloader.dataset.pipeline.{key}': one for key, one in changes.items()}
        config.merge_from_dict(keys)
        pipeline = Compose(config.train_dataloader.dataset.pipeline)
        items = []
        for number, info in enumerate(infos):
            with seeded(number):
                items.append(pipeline({**info}))
        batch = AddressedCollate(default_collate)(items)
        assert batch['inputs'].dtype == (kind if changes else torch.float32)
        found.append(preprocessor(batch, training=True))
    exact, rounded = (one['inputs'] for one in found)
    assert exact.dtype == rounded.dtype == torch.float32
    stds = torch.tensor(config.data_preprocessor.get('std') or [50.0] * 4).view(1, -1, 1, 1)
    if 'mars' in name:
        sensors = config.data_preprocessor.sensors
        stds = torch.tensor([sensors[info['sensor']].std for info in infos])[..., None, None]
    difference = (exact - rounded).abs() * stds
    assert 0.2 < difference.max() <= 0.5 + 2e-2
