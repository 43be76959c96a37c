# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Configs and checkpoints as functions of tiles: their pipelines, their contracts, the command."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmrsfm.apis import SceneInferencer
from mmrsfm.apis.scene.grid import Tile
from mmrsfm.apis.scene.model import SceneModel, find_task
from mmrsfm.apis.scene.pipeline import TilePipeline, stated_size
from mmrsfm.apis.scene.tile_data import TileInput
from mmrsfm.engine import command_line
from mmrsfm.errors import ConfigError, ContractError, DataError, IncompleteLoadError
from tests.test_apis.scenes import picture, read
from tests.test_datasets.imagery import TRANSFORM, write_tif

BANDS = ['B02', 'B03', 'B04', 'B08']
_SPEC = importlib.util.spec_from_file_location(
    'infer_scene', Path(__file__).resolve().parents[2] / 'tools' / 'infer_scene.py'
)
tool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)


def make_config(head=None, **dataset):
    backbone = dict(
        type='mmrsfm.CrossScaleViT', arch='tiny', in_channels=4, patch_size=8, out_type='featmap'
    )
    head = head or dict(
        type='FCNHead', in_channels=128, in_index=0, channels=8, num_convs=1, num_classes=3
    )
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder', backbone=backbone, decode_head=head,
                test_cfg=dict(mode='whole'),
            ),
            data_preprocessor=dict(
                type='mmrsfm.MultiBandSegDataPreprocessor', band_names=BANDS, mean=[0.5] * 4,
                std=[0.3] * 4, scale=0.01,
            ),
            test_dataloader=dict(
                dataset=dict(
                    type='mmrsfm.GeoTIFFSegDataset',
                    metainfo=dict(classes=('a', 'b', 'c'), palette=[[9, 9, 9]] * 3),
                    pipeline=[
                        dict(type='mmrsfm.LoadMultiBandImage', bands=BANDS, scale=0.01),
                        dict(type='mmrsfm.LoadSegLabel'),
                        dict(type='LoadAnnotations'),
                        dict(type='mmrsfm.PackSegInputs'),
                    ],
                    **dataset,
                )
            ),
        )
    )  # fmt: skip


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    from mmengine.registry import MODELS

    from mmrsfm.engine import run_config

    run_config.register_scope('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(make_config().model)
    path = tmp_path_factory.mktemp('weights') / 'a.pth'
    meta = {'mmrsfm_contract': {'band_names': BANDS, 'scale': 0.01}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return path


def reflectances(height=70, width=45):
    return picture(height, width, 4, 'uint16')


class TestModel:
    def test_a_config_says_what_is_read_and_what_comes_out(self, checkpoint):
        model = SceneModel(make_config(band_names=BANDS), checkpoint, tile_size=32)
        assert (model.task, model.tile_size, model.channels) == ('segmentation', 32, 3)
        assert model.classes == ['a', 'b', 'c'] and model.palette == [(9, 9, 9)] * 3
        assert model.band_names == (tuple(BANDS),)
        assert model.contract.scale == 0.01
        assert model.file_bands == tuple(BANDS)
        assert SceneModel(make_config(), checkpoint).tile_size == 512

    def test_logits_are_those_of_the_model_on_the_same_pixels(self, checkpoint):
        model = SceneModel(make_config(), checkpoint, tile_size=32)
        array = reflectances(32, 32).transpose(1, 2, 0)
        valid = np.ones((32, 32), bool)
        valid[:8] = False
        tile = TileInput((array,), valid, Tile(0, 0, 0, 32, 32), (tuple(BANDS),))
        found = model.predict([tile, tile])
        values = (torch.from_numpy(array.transpose(2, 0, 1).astype('f4')) * 0.01 - 0.5) / 0.3
        values[:, :8] = 0  # the mean, as in training
        with torch.no_grad():
            wanted = model.model.encode_decode(values[None], [dict(img_shape=(32, 32))])[0]
        assert found[1].logits.shape == (3, 32, 32)
        assert not tile.valid[:8].any() and tile.valid[8:].all()
        torch.testing.assert_close(found[1].logits, wanted, rtol=1e-4, atol=1e-5)

    def test_what_the_config_takes_for_no_data_has_no_class(self, checkpoint, tmp_path):
        array = reflectances(40, 40)
        array[:, :10] = 7
        scene = write_tif(tmp_path / 'a.tif', array, names=BANDS)
        config = make_config()
        config.test_dataloader.dataset.pipeline[0].nodata = 7
        result = SceneInferencer(config, checkpoint, tile_size=32)(scene, out_dir=tmp_path / 'out')
        found = read(result.outputs['map'])[0]
        assert (found[:10] == 255).all() and (found[10:] < 3).all()

    def test_mixed_precision(self, checkpoint):
        array = reflectances(32, 32).transpose(1, 2, 0)
        tile = TileInput(
            (array,), np.ones((32, 32), bool), Tile(0, 0, 0, 32, 32), (tuple(BANDS),)
        )  # fmt: skip
        found = [
            SceneModel(make_config(), checkpoint, amp=amp, tile_size=32).predict([tile])[0].logits
            for amp in (False, True)
        ]
        assert found[1].dtype == torch.float32
        assert 0 < (found[0] - found[1]).abs().max() < 0.1 * found[0].abs().max()

    def test_a_checkpoint_of_another_model(self, checkpoint):
        config = make_config()
        config.model.backbone.patch_size = 4
        with pytest.raises(IncompleteLoadError, match=r'(?s)a\.pth is of another model'):
            SceneModel(config, checkpoint)
        config = make_config()
        config.model.backbone.qkv_bias = False
        with pytest.raises(IncompleteLoadError, match='left over'):
            SceneModel(config, checkpoint)

    def test_a_checkpoint_of_other_imagery(self, checkpoint):
        config = make_config()
        config.data_preprocessor.band_names = ['B02', 'B03', 'B04', 'B05']
        with pytest.raises(ContractError, match=r'B08.*there|B08.*B05'):
            SceneModel(config, checkpoint)

    def test_features_of_the_backbone(self, checkpoint):
        model = SceneModel(make_config(), checkpoint, features=-1, tile_size=32)
        tile = TileInput(
            (reflectances(32, 32).transpose(1, 2, 0),), np.ones((32, 32), bool),
            Tile(0, 0, 0, 32, 32), (tuple(BANDS),),
        )  # fmt: skip
        assert model.task == 'features'
        assert model.predict([tile])[0].features.shape == (128, 4, 4)
        with pytest.raises(ConfigError, match='asked for 7'):
            SceneModel(make_config(), checkpoint, features=7, tile_size=32).predict([tile])

    def test_a_model_that_makes_no_maps(self):
        with pytest.raises(ConfigError, match='Identity is no model of one of the tasks'):
            find_task(torch.nn.Identity())


class TestPipeline:
    def test_sizes_follow_the_tile_so_that_the_ground_keeps_its_scale(self):
        steps = [
            dict(type='mmdet.LoadImageFromFile'),
            dict(type='mmdet.Resize', scale=(200, 200), keep_ratio=True),
            dict(type='mmdet.PackDetInputs', meta_keys=('img_shape', 'ori_shape')),
        ]
        assert stated_size(steps) == 200
        assert stated_size([dict(type='RandomCrop', crop_size=(48, 64))], last=True) == 64
        assert stated_size([dict(type='Flip', prob=0.5)]) is None
        tile = TileInput(
            (picture(100, 100).transpose(1, 2, 0),), np.ones((100, 100), bool),
            Tile(0, 0, 0, 100, 100),
        )  # fmt: skip
        with DefaultScope.overwrite_default_scope('mmdet'):
            assert TilePipeline(steps)(tile.rasters())['inputs'].shape == (3, 200, 200)
            packed = TilePipeline(steps, 0.5)(tile.rasters())
        assert packed['inputs'].shape == (3, 100, 100)
        # Blue first, as OpenCV reads files.
        np.testing.assert_array_equal(
            packed['inputs'].numpy(), tile.arrays[0].transpose(2, 0, 1)[::-1]
        )

    def test_a_pipeline_without_a_known_loader(self):
        with pytest.raises(ConfigError, match='no step that a scene can take the place of'):
            TilePipeline([dict(type='LoadFromTheMoon')])


class TestCommand:
    def test_a_folder_of_scenes(self, checkpoint, tmp_path, capsys):
        make_config().dump(tmp_path / 'config.py')
        for name in 'ab':
            write_tif(tmp_path / f'scenes/{name}.tif', reflectances(), names=['x1', *BANDS[1:]])
        words = [
            str(tmp_path / 'config.py'), str(checkpoint), str(tmp_path / 'scenes'), '--out',
            str(tmp_path / 'out'), '--tile-size', '32', '--batch-size', '4', '--device', 'cpu',
        ]  # fmt: skip
        assert command_line.run_command(tool.main, tool.build_parser(), words) == 1
        assert "band B02: not among the bands of the file, ['x1'" in capsys.readouterr().err
        words += ['--bands', 'B02=x1', '--page']
        assert command_line.run_command(tool.main, tool.build_parser(), words) == 0
        for name in 'ab':
            assert read(tmp_path / f'out/{name}.tif').shape == (1, 70, 45)
            assert (tmp_path / f'out/{name}.html').exists()

    def test_a_scene_that_cannot_be_used_does_not_stop_the_others(
        self, checkpoint, tmp_path, capsys
    ):
        make_config().dump(tmp_path / 'config.py')
        for name in 'bc':
            write_tif(tmp_path / f'scenes/{name}.tif', reflectances(), names=BANDS)
        (tmp_path / 'scenes/a.tif').write_text('no image')
        (tmp_path / 'scenes/._b.tif').write_text('of a file manager')
        words = [
            str(tmp_path / 'config.py'), str(checkpoint), str(tmp_path / 'scenes'), '--out',
            str(tmp_path / 'out'), '--tile-size', '32', '--device', 'cpu',
        ]  # fmt: skip
        assert command_line.run_command(tool.main, tool.build_parser(), words) == 1
        said = capsys.readouterr().err
        assert '1 of 3 scenes have no map' in said and 'a.tif: cannot be opened' in said
        assert sorted(path.name for path in (tmp_path / 'out').glob('*.tif')) == ['b.tif', 'c.tif']
        # Scenes without a pixel of the area of interest are no failures, unless all are.
        (tmp_path / 'scenes/a.tif').unlink()
        write_tif(tmp_path / 'scenes/d.tif', reflectances(200, 45), names=BANDS)
        area = ['--bounds', str(TRANSFORM.c), str(TRANSFORM.f - 1900), str(TRANSFORM.c + 100)]
        words[4] = str(tmp_path / 'area')
        inside = [*words, *area, str(TRANSFORM.f - 1800)]
        assert command_line.run_command(tool.main, tool.build_parser(), inside) == 0
        assert [path.name for path in (tmp_path / 'area').glob('*.tif')] == ['d.tif']
        nowhere = [*words, '--bounds', '0', '0', '1', '1']
        assert command_line.run_command(tool.main, tool.build_parser(), nowhere) == 1
        assert 'does not lie in any of the scenes' in capsys.readouterr().err

    def test_scenes_and_their_partners(self, tmp_path):
        for folder in ('one', 'two'):
            for name in ('a.tif', 'b.tif', 'note.md'):
                (tmp_path / folder / name).parent.mkdir(exist_ok=True)
                (tmp_path / folder / name).touch()
        first = tool.find_scenes(str(tmp_path / 'one'))
        assert [Path(one).name for one in first] == ['a.tif', 'b.tif']
        partners = tool.match_scenes(first, str(tmp_path / 'two'))
        assert partners == [str(tmp_path / 'two/a.tif'), str(tmp_path / 'two/b.tif')]
        (tmp_path / 'list.txt').write_text('# scenes\none/b.tif\n\none/a.tif\n')
        assert tool.find_scenes(str(tmp_path / 'list.txt')) == [
            str(tmp_path / 'one/b.tif'), str(tmp_path / 'one/a.tif')
        ]  # fmt: skip
        (tmp_path / 'two/b.tif').unlink()
        with pytest.raises(DataError, match='no partner of the same name'):
            tool.match_scenes(first, str(tmp_path / 'two'))

    def test_bands_on_the_command_line(self):
        assert tool.parse_bands(['B04=3', 'B03=green']) == {'B04': 3, 'B03': 'green'}
        assert tool.parse_bands(['3', 'B2']) == [3, 'B2']
        assert tool.parse_bands(None) is None
        with pytest.raises(ConfigError, match='either NAME=BAND'):
            tool.parse_bands(['3', 'B2=1'])
