# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Models in ONNX: the numbers of PyTorch, a file that needs no config, and what is refused."""

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config
from rasterio.transform import from_origin
from torch import nn

from mmrsfm.apis.exporting import export_onnx
from mmrsfm.apis.exporting.graph import Graph, open_session, relative_difference
from mmrsfm.apis.exporting.metadata import METADATA_KEY, OnnxMetadata
from mmrsfm.apis.exporting.networks import check_task, check_windows
from mmrsfm.apis.exporting.preprocessing import measure_preprocessing, random_tile
from mmrsfm.apis.scene import speed
from mmrsfm.apis.scene.grid import Tile
from mmrsfm.apis.scene.inferencer import SceneInferencer, load_model
from mmrsfm.apis.scene.model import SceneModel
from mmrsfm.apis.scene.onnx_model import OnnxModel
from mmrsfm.apis.scene.tile_data import TileInput
from mmrsfm.errors import (
    BandMismatchError,
    CheckpointReadError,
    ConfigError,
    ExportError,
    UnknownLayoutError,
)
from mmrsfm.registry import MODELS

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'export.py'
BANDS = ['B04', 'B03', 'B8A']
SIZE = 32
SWIN = dict(
    type='mmrsfm.SwinV2', window_size=4, img_size=64,
    arch=dict(embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2]),
)  # fmt: skip
# Name -> (config, bands). Every registered backbone; sizes that need padding in the windows.
BACKBONES = {
    'ConvNeXtV2': (
        dict(
            type='mmrsfm.ConvNeXtV2', in_channels=4, out_indices=(0, 1, 2, 3),
            arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 16, 32]),
        ), 4,
    ),
    'CrossScaleViT': (
        dict(
            type='mmrsfm.CrossScaleViT', arch='tiny', in_channels=4, patch_size=4, img_size=32,
            out_type='pyramid',
        ), 4,
    ),
    'RVSAViT': (
        dict(type='mmrsfm.RVSAViT', arch='tiny', img_size=64, out_indices=(0, 1, 2, 3)), 3,
    ),
    'InternImage': (
        dict(
            type='mmrsfm.InternImage',
            arch=dict(
                channels=16, depths=[1, 1, 1, 1], groups=[2, 4, 8, 16], layer_scale=1e-5,
                offset_scale=2.0, post_norm=True,
            ),
        ), 3,
    ),
    'MixMIM': (
        dict(
            type='mmrsfm.MixMIM', img_size=64, in_channels=2, out_indices=(0, 1, 2, 3),
            arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        ), 2,
    ),
    'SwinV2': (dict(SWIN, in_channels=3), 3),
}  # fmt: skip
DUAL = dict(
    type='mmrsfm.DualModalityBackbone',
    backbone=dict(
        type='mmrsfm.ConvNeXtV2', patch_size=4, out_indices=(0, 1),
        arch=dict(depths=[1, 1], channels=[8, 8]),
    ),
    modalities=dict(rgb=dict(channels=3), sar=dict(channels=1)),
)  # fmt: skip


def build(config):
    """A backbone with weights that matter: some are initialised as zeros."""
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.requires_grad_(False).eval()


def segmentor(pipeline=None, **test_cfg):
    """A config for three bands of reflectance, stored as integers."""
    load = dict(type='mmrsfm.LoadMultiBandImage', bands=BANDS, to_float32=True)
    metainfo = dict(classes=('water', 'land'), palette=[(0, 0, 255), (0, 255, 0)])
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(
                    type='mmrsfm.MultiBandSegDataPreprocessor', band_names=BANDS, scale=1e-4,
                    scale_on_device=True, mean=[0.1, 0.2, 0.3], std=[0.05, 0.06, 0.07],
                ),
                backbone=dict(
                    type='mmrsfm.ConvNeXtV2', in_channels=3, patch_size=4, out_indices=(0, 1),
                    arch=dict(depths=[1, 1], channels=[8, 8]),
                ),
                decode_head=dict(
                    type='FCNHead', in_channels=8, channels=8, in_index=1, num_convs=1,
                    num_classes=2, norm_cfg=dict(type='BN'),
                ),
                test_cfg=dict(dict(mode='whole'), **test_cfg),
            ),
            test_dataloader=dict(
                dataset=dict(
                    type='mmrsfm.GeoTiffSegDataset', metainfo=metainfo,
                    pipeline=[
                        load, *(pipeline or []),
                        dict(type='mmrsfm.PackSegInputs'),
                    ],
                ),
            ),
        )
    )  # fmt: skip


def weights_of(cfg, path):
    from mmengine.registry import DefaultScope

    from mmrsfm.engine import run_config

    run_config.register_scope('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    torch.save({'state_dict': model.state_dict()}, path)
    return path


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A segmentor, exported by the command of a user: config, checkpoint, file."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('export')
    cfg = segmentor()
    cfg.dump(folder / 'config.py')
    checkpoint = weights_of(cfg, folder / 'model.pth')
    spec = importlib.util.spec_from_file_location('export_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    words = [folder / 'config.py', checkpoint, '--out', folder / 'model.onnx', '--size', SIZE]
    tool.main(tool.build_parser().parse_args([str(word) for word in words]))
    return cfg, checkpoint, folder / 'model.onnx'


def tile_of(array, names=tuple(BANDS), nodata=None):
    height, width = array.shape[:2]
    valid = np.ones((height, width), bool)
    tile = Tile(0, 0, 0, height, width)
    return TileInput((array,), valid, tile, (names,), None if nodata is None else (nodata,))


def test_predictions_are_those_of_the_config_for_any_number_of_tiles_and_no_data(exported):
    cfg, checkpoint, file = exported
    reference = SceneModel(cfg, checkpoint, tile_size=SIZE)
    model = load_model(None, file)
    assert isinstance(model, OnnxModel)
    tiles = [random_tile(reference, SIZE, seed, holes=seed % 2 == 1) for seed in range(3)]
    # What a file holds: integers, a no-data value of one band, a mask of all.
    stored = np.random.default_rng(0).integers(1, 6000, (SIZE, SIZE, 3)).astype(np.uint16)
    stored[3:9, 5:8, 1] = 0
    tiles.append(tile_of(stored, nodata=(None, 0, None)))
    found, wanted = model.predict(tiles), reference.predict(tiles)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=1e-5)
    assert found[1].tile is tiles[1].tile


def test_the_file_says_all_that_a_scene_needs(exported):
    cfg, checkpoint, file = exported
    reference, model = SceneModel(cfg, checkpoint, tile_size=SIZE), OnnxModel(file)
    for name in ('task', 'classes', 'palette', 'inputs', 'contract', 'band_names', 'threshold',
                 'multi_label', 'tile_size', 'channels', 'file_bands'):  # fmt: skip
        assert getattr(model, name) == getattr(reference, name), name
    metadata = model.metadata
    np.testing.assert_allclose(metadata.mean, [1000, 2000, 3000], rtol=1e-5)
    np.testing.assert_allclose(metadata.std, [500, 600, 700], rtol=1e-5)
    assert metadata.error < 1e-5
    assert metadata.masked
    # Any other program: numbers of the file in, NaN where there are none.
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    image = np.full((2, 3, SIZE, SIZE), 1234, np.float32)
    image[0, :, :4] = np.nan
    (logits,) = session.run(['logits'], {'image': image})
    assert logits.shape == (2, 2, SIZE, SIZE)
    assert np.isfinite(logits).all()
    assert onnx.load(file).doc_string.startswith('segmentation')


def test_maps_of_a_scene_are_those_of_the_config_and_can_be_timed(exported, tmp_path):
    cfg, checkpoint, file = exported
    scene = tmp_path / 'scene.tif'
    image = np.random.default_rng(1).integers(1, 6000, (4, 70, 90)).astype(np.uint16)
    image[:, :9, 60:] = 0
    with rasterio.open(
        scene, 'w', driver='GTiff', count=4, height=70, width=90, dtype='uint16', nodata=0,
        crs='EPSG:32618', transform=from_origin(4e5, 4e6, 10, 10),
    ) as out:  # fmt: skip
        out.write(image)
        out.descriptions = ('B8A', 'B02', 'B03', 'B04')
    maps = {}
    for name, arguments in (('onnx', (None, file)), ('torch', (cfg, checkpoint))):
        inferencer = SceneInferencer(*arguments, tile_size=SIZE, batch_size=3)
        result = inferencer(scene, out_dir=tmp_path / name, probabilities=True)
        for kind in ('map', 'probabilities'):
            with rasterio.open(result.outputs[kind]) as source:
                maps[name, kind] = source.read()
    np.testing.assert_array_equal(maps['onnx', 'map'], maps['torch', 'map'])
    np.testing.assert_allclose(
        maps['onnx', 'probabilities'], maps['torch', 'probabilities'], atol=1e-5
    )
    assert (maps['onnx', 'map'][0, :9, 60:] == 255).all()
    assert len(np.unique(maps['onnx', 'map'])) == 3
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    words = ['--scene', str(scene), '--checkpoint', str(file), '--runs', '2', '--overlap', '8']
    args = parser.parse_args(words)
    vars(args).update(config='-', cfg_options=None, device='cpu', amp=False, batch_size=2,
                      tile_size=None)  # fmt: skip
    figures = speed.measure_scene(args)
    assert figures['megapixels'] == 70 * 90 / 1e6
    assert (figures['runs'], figures['tile_size'], figures['tiles']) == (2, SIZE, 3 * 4)
    assert 0 <= figures['waiting_share'] <= 1
    text = speed.describe_scene(figures)
    assert 'segmentation of' in text
    assert 'waiting for data: ' in text


def test_other_bands_and_sizes_are_named(exported):
    file = exported[2]
    model = OnnxModel(file)
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    with pytest.raises(BandMismatchError, match=r'has 4 band.*takes 3.*B04.*B03.*B8A'):
        model.predict([tile_of(np.zeros((SIZE, SIZE, 4), np.float32), None)])
    with pytest.raises(BandMismatchError, match=r"\['B03', 'B04', 'B8A'\]"):
        model.predict([tile_of(image, ('B03', 'B04', 'B8A'))])
    with pytest.raises(BandMismatchError, match='1 image'):
        model.predict([TileInput((image, image), np.ones((SIZE, SIZE), bool), Tile(0, 0, 0, 1, 1))])
    with pytest.raises(ConfigError, match=f'tiles of {SIZE} pixels, got 64.*--size 64'):
        OnnxModel(file, tile_size=64)
    with pytest.raises(ConfigError, match='--part backbone'):
        OnnxModel(file, features=-1)
    with pytest.raises(ConfigError, match='computes as it was exported'):
        OnnxModel(file, amp=True)


def test_files_of_others_and_broken_ones_are_refused_with_a_sentence(exported, tmp_path):
    file = exported[2]
    with pytest.raises(CheckpointReadError, match='no such file'):
        OnnxModel(tmp_path / 'nothing.onnx')
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointReadError, match=r'broken.onnx cannot be read as a model of ONNX'):
        OnnxModel(broken)
    model = onnx.load(file)
    text = {prop.key: prop.value for prop in model.metadata_props}[METADATA_KEY]
    for change, message in (
        (None, 'not written by tools/export.py'),
        ('{', 'are damaged'),
        ('[]', 'are damaged'),
        (text.replace('"format": 1', '"format": 99'), 'export the model again'),
        (text.replace('"eight_bit"', '"run"'), 'are damaged'),
        (text.replace('"band_names"', '"code"'), 'are damaged'),
    ):
        properties = {} if change is None else {METADATA_KEY: change}
        with pytest.raises(UnknownLayoutError, match=message):
            OnnxMetadata.from_file(properties, 'other.onnx')
    # Of the right form, of another graph; and of no form that anything could be made of.
    for key, value in (('size', 48), ('channels', 3), ('batch', 'two'), ('task', 'detection'),
                       ('size', 10**12), ('classes', 'land'), ('classes', [{}]), ('masked', 3),
                       ('palette', [[0, 0, 256]]), ('threshold', 'x'),
                       ('size_divisor', 0)):  # fmt: skip
        changed = json.dumps(dict(json.loads(text), **{key: value}))
        onnx.helper.set_model_props(model, {METADATA_KEY: changed})
        with pytest.raises(UnknownLayoutError, match='metadata are damaged'):
            OnnxModel(model.SerializeToString())
    del model.metadata_props[:]
    onnx.save(model, tmp_path / 'other.onnx')
    with pytest.raises(UnknownLayoutError, match=r'other.onnx does not say which bands'):
        OnnxModel(tmp_path / 'other.onnx')


def test_what_cannot_be_a_graph_is_refused_with_the_reason(exported, tmp_path):
    _, checkpoint, _ = exported
    for task in ('detection', 'rotated_detection', 'instance_segmentation', 'translation'):
        with pytest.raises(ExportError, match=f'{task} cannot be exported: .*--part backbone'):
            check_task(task)
    sliding = nn.Module()
    sliding.test_cfg = dict(mode='slide', crop_size=(48, 48), stride=(32, 32))
    check_windows(sliding, 48)
    with pytest.raises(ExportError, match='--size 48'):
        check_windows(sliding, 64)
    larger = segmentor([dict(type='mmrsfm.Resize', size=64)])
    scene = SceneModel(larger, checkpoint, tile_size=32, image_size=32)
    with pytest.raises(ExportError, match=r'Resize.*makes 64 x 64 pixels of a tile of 32'):
        measure_preprocessing(scene, 32)
    clipped = segmentor([dict(type='mmrsfm.ScaleSAR', method='linear', limits=(0.0, 20000.0),
                              out_range=None, channels=[0, 1, 2])])  # fmt: skip
    with pytest.raises(ExportError, match=r'-1000000.0.*is something clipped'):
        measure_preprocessing(SceneModel(clipped, checkpoint, tile_size=32), 32)
    scene = SceneModel(segmentor(), checkpoint, tile_size=32)
    scene.pipeline._rest.transforms.insert(0, decibels)
    with pytest.raises(ExportError, match=r'do more than scale and shift.*--input normalized'):
        measure_preprocessing(scene, 32)
    with pytest.raises(ConfigError, match='no multiple of 5'):
        export_onnx(segmentor(), checkpoint, tmp_path / 'x.onnx', size=32, size_divisor=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('nodata', 'message'), [(None, ''), (-9999.0, 'a number no data'), (0, '')]
)
def test_what_the_loading_step_takes_for_no_data_is_found_out(exported, nodata, message):
    cfg = segmentor()
    cfg.test_dataloader.dataset.pipeline[0].nodata = nodata
    scene = SceneModel(cfg, exported[1], tile_size=16)
    if nodata is None:  # pixels as any: what the file says of them does not matter
        assert measure_preprocessing(scene, 16).fill is None
        assert measure_preprocessing(SceneModel(segmentor(), exported[1]), 16).fill == 0
    else:
        with pytest.raises(ExportError, match=message):
            measure_preprocessing(scene, 16)


def decibels(results):
    results['img'] = 10 * np.log10(results['img'] + 1)
    return results


class FixedTable(nn.Module):
    """Adds a table of the size that it was made for; smaller images get a part of it."""

    def __init__(self, by_value=False):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 2, 32, 32))
        self.by_value = by_value

    def forward(self, x):
        if self.by_value is None:
            return (x * torch.nan,)
        if self.by_value and x.sum() > 0:
            x = -x
        return (x + self.table[:, :, : int(x.shape[2]), : int(x.shape[3])],)


def test_graphs_that_do_not_hold_what_they_promise_are_refused():
    images = [torch.randn(2, 2, 32, 32)]
    with torch.no_grad():
        with pytest.raises(ExportError, match='PyTorch makes no graph of it'):
            Graph(FixedTable(by_value=True).eval(), images)
        with pytest.raises(ExportError, match=r'differ by .* at most -1e\+00 is accepted'):
            Graph(FixedTable().eval(), images, tolerance=-1.0)
        with pytest.raises(ExportError, match='numbers that are not finite'):
            Graph(FixedTable(by_value=None).eval(), images)


def test_differences_are_relative_and_numbers_that_are_none_agree_with_nothing():
    wanted = torch.tensor([4.0, -200.0])
    assert relative_difference(wanted + 1, wanted) == pytest.approx(1 / 200)
    assert relative_difference(torch.tensor([0.25]), torch.tensor([0.0])) == 0.25
    for value in (torch.nan, torch.inf):
        assert relative_difference(torch.tensor([value, 0.0]), wanted) == np.inf
        assert relative_difference(wanted, torch.tensor([value, 0.0])) == np.inf
    assert relative_difference(torch.zeros(0), torch.zeros(0)) == 0


@pytest.mark.parametrize('name', BACKBONES)
def test_what_backbones_do_in_an_export_gives_the_same_numbers(name, monkeypatch):
    """Without an exporter, which takes seconds: its switch alone."""
    config, bands = BACKBONES[name]
    model = build(config)
    images = torch.randn(2, bands, 48, 80)
    with torch.no_grad():
        wanted = model(images)
        monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)
        for one, other in zip(model(images), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', BACKBONES)
def test_every_backbone_becomes_a_graph_for_any_number_of_images(name):
    config, bands = BACKBONES[name]
    graph = Graph(build(config), [torch.randn(2, bands, 64, 96)])
    assert graph.error < 1e-5
    assert not any(node.op_type == 'Loop' for node in graph.proto.graph.node)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ConvNeXtV2', 'CrossScaleViT'])
def test_these_backbones_take_any_size(name):
    config, bands = BACKBONES[name]
    graph = Graph(build(config), [torch.randn(2, bands, 64, 96)], size_divisor=32)
    assert graph.error < 1e-5


@pytest.mark.slow
def test_another_opset_than_was_asked_for_is_an_error():
    """PyTorch's exporter goes on with its own, and says so in a line of the log."""
    images = [torch.randn(2, 2, 32, 32)]
    with pytest.raises(ExportError, match=r'opset 13: PyTorch made one with opset \d+'):
        Graph(FixedTable().eval(), images, opset=13)
    graph = Graph(FixedTable().eval(), images, opset=20)
    assert graph.proto.opset_import[0].version == 20


def incomplete_images():
    """Images that lack a part, one of their modalities, everything, nothing."""
    images = torch.randn(5, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    images[0, 3] = torch.nan
    images[1, :3] = torch.nan
    images[2] = torch.nan
    images[3, 1, 10:40, 20:] = torch.nan
    return images


@pytest.mark.parametrize('fusion', ['add', 'mean', 'concat', 'diff', 'mma'])
def test_branches_without_data_are_left_out_by_the_fusion_of_a_graph(fusion, monkeypatch):
    """Without an exporter: each batch that skips other branches against all at once."""
    images = incomplete_images()
    with torch.no_grad():
        model = build(dict(DUAL, fusion=fusion))
        wanted = [model(one) for one in (images, images[:1], images[1:2], images[2:3], images[4:])]
        monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)
        whole = model(images)
    for level, found in enumerate(whole):
        torch.testing.assert_close(found, wanted[0][level], rtol=1e-5, atol=1e-5)
        for image, number in ((0, 1), (1, 2), (2, 3), (4, 4)):
            torch.testing.assert_close(
                found[image : image + 1], wanted[number][level], rtol=1e-4, atol=1e-5
            )


@pytest.mark.slow
def test_a_backbone_of_two_modalities_is_a_graph_that_knows_what_is_missing():
    model, images = build(DUAL), incomplete_images()
    graph = Graph(model, [images[:2]])
    assert graph.error < 1e-5
    session = open_session(graph.proto.SerializeToString())
    for batch in (images, images[:1], images[2:3], images[4:]):
        with torch.no_grad():
            wanted = model(batch)
        found = session.run(None, {'image': batch.numpy()})
        for one, other in zip(found, wanted, strict=True):
            assert relative_difference(torch.from_numpy(one), other) < 1e-5


@pytest.mark.slow
def test_a_model_of_two_modalities_takes_scenes_of_which_one_is_missing(tmp_path):
    cfg = segmentor()
    cfg.model.backbone = DUAL
    cfg.model.data_preprocessor = dict(
        type='mmrsfm.MultiBandSegDataPreprocessor', mean=[112.0, 118, 115, 63],
        std=[73.0, 73, 82, 68],
        invalid='nan',
    )  # fmt: skip
    load = dict(type='mmrsfm.LoadModalities', modalities=dict(rgb=3, sar=1))
    cfg.test_dataloader.dataset.pipeline = [load, dict(type='mmrsfm.PackSegInputs')]
    checkpoint = weights_of(cfg, tmp_path / 'model.pth')
    metadata = export_onnx(cfg, checkpoint, tmp_path / 'model.onnx', size=SIZE)
    assert [one['optional'] for one in metadata.inputs] == [True, True]
    reference = SceneModel(cfg, checkpoint, tile_size=SIZE)
    model = OnnxModel(tmp_path / 'model.onnx')
    for missing in (None, 0, 1):
        tile = random_tile(reference, SIZE, holes=True)
        tile.arrays = tuple(None if n == missing else one for n, one in enumerate(tile.arrays))
        found, wanted = model.predict([tile])[0].logits, reference.predict([tile])[0].logits
        assert relative_difference(found, wanted) < 1e-5
