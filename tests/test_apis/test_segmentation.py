# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Segmentation of single images: files without band names, any size, no-data, wrong checkpoints."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmrsfm.apis.segmentation import SegmentationInferencer
from mmrsfm.errors import BandMismatchError, IncompleteLoadError
from tests.test_datasets.imagery import write_tif

BANDS = ['B02', 'B03', 'B04', 'B08']


def make_config(**dataset):
    bands = dict(type='mmrsfm.LoadMultiBandImage', bands=BANDS)
    return Config(
        dict(
            model=dict(
                type='EncoderDecoder',
                backbone=dict(
                    type='mmrsfm.CrossScaleViT', arch='tiny', in_channels=4, out_type='featmap'
                ),
                decode_head=dict(
                    type='FCNHead', in_channels=128, in_index=0, channels=8, num_convs=1,
                    num_classes=3,
                ),
                test_cfg=dict(mode='whole'),
            ),
            data_preprocessor=dict(
                type='mmrsfm.MultiBandSegDataPreprocessor', band_names=BANDS, mean=[0.5] * 4,
                std=[0.3] * 4,
            ),
            test_dataloader=dict(
                dataset=dict(
                    type='mmrsfm.GeoTIFFSegDataset',
                    metainfo=dict(classes=('a', 'b', 'c')),
                    pipeline=[
                        bands,
                        dict(type='mmrsfm.LoadSegLabel'),
                        dict(type='LoadAnnotations'),
                        dict(type='mmrsfm.PackSegInputs'),
                    ],
                    **dataset,
                )
            ),
        )
    )  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    torch.save({'state_dict': MODELS.build(make_config().model).state_dict()}, tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


@pytest.fixture
def image(tmp_path):
    array = np.random.default_rng(0).random((4, 70, 45)).astype('float32')
    array[:, :10] = np.nan
    array[0, 10:20] = np.nan  # one band only: there is something to see
    return write_tif(tmp_path / 'scene.tif', array)  # does not name its bands


def test_the_datasets_band_names_serve_files_that_have_none(checkpoint, image):
    inferencer = SegmentationInferencer(make_config(band_names=BANDS), checkpoint)
    assert inferencer.class_names == ['a', 'b', 'c']
    classes = inferencer(image)
    assert classes.shape == (70, 45)
    assert classes.dtype == np.uint8
    assert (classes[:10] == 255).all()
    assert (classes[10:] < 3).all()


def test_bands_that_nobody_names(checkpoint, image):
    with pytest.raises(BandMismatchError, match=r'scene\.tif: band B02: .*band_names'):
        SegmentationInferencer(make_config(), checkpoint)(image)


def test_a_checkpoint_of_another_model(checkpoint, tmp_path):
    config = make_config()
    config.model.backbone.patch_size = 8
    with pytest.raises(IncompleteLoadError, match=r'(?s)a\.pth is of another model.*patch_embed'):
        SegmentationInferencer(config, checkpoint)
    config = make_config()
    config.model.backbone.norm_cfg = dict(type='LN', eps=1e-5)
    config.model.backbone.qkv_bias = False
    with pytest.raises(IncompleteLoadError, match='left over'):
        SegmentationInferencer(config, checkpoint)
