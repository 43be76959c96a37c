# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""tools/browse_dataset.py, and the pictures it makes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrsfm.class_tables import SAMRS
from mmrsfm.datasets import AddressedDataset, TileDataset
from mmrsfm.engine import command_line
from mmrsfm.errors import BandMismatchError, ConfigError
from mmrsfm.randomness import SampleAddress
from mmrsfm.visualization import objects, samples
from tests import formats
from tests.formats import make_sen12_flood
from tests.test_datasets.imagery import numbers, write_tif

REPO = Path(__file__).resolve().parents[2]
TOOL = REPO / 'tools' / 'browse_dataset.py'
PIPELINE = [
    dict(type='mmrsfm.LoadMultiBandImage'),
    dict(type='mmrsfm.RandomResizedCrop', size=32),
    dict(type='mmrsfm.Pad', size=40),
    dict(type='mmrsfm.PackInputs'),
]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('browse_dataset', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(folder, seg=False) -> str:
    names = ['B02', 'B03', 'B04', 'B08']
    write_tif(folder / 'images' / 'a.tif', numbers(height=48, width=48), names)
    write_tif(folder / 'labels' / 'a.tif', numbers(1, 48, 48, 'uint8') % 2)
    prefix = {'img_path': 'images', **({'seg_map_path': 'labels'} if seg else {})}
    dataset = dict(
        type='mmrsfm.GeoTIFFSegDataset' if seg else 'mmrsfm.TileDataset',
        data_root=str(folder),
        data_prefix=prefix,
        pipeline=[*PIPELINE[:1], dict(type='mmrsfm.LoadSegLabel'), *PIPELINE[1:]]
        if seg
        else PIPELINE,
        metainfo=dict(classes=('x', 'y'), palette=[[255, 0, 0], [0, 0, 255]]) if seg else None,
    )
    repeated = dict(type='RepeatDataset', times=2, dataset=dataset)
    path = folder / 'config.py'
    scope = 'mmseg' if seg else 'mmpretrain'
    path.write_text(
        f'default_scope = {scope!r}\ntrain_dataloader = dict(dataset={repeated!r})\n'
        "custom_imports = dict(imports=['mmrsfm'])\n"
    )
    return str(path)


@pytest.mark.parametrize('mode', samples.MODES)
@pytest.mark.parametrize('seg', [False, True])
def test_pictures(tmp_path, tool, capsys, mode, seg):
    out = tmp_path / 'out'
    argv = [config(tmp_path, seg), '--output-dir', str(out), '--mode', mode, '--bands', 'B08,3,2']
    assert command_line.run_command(tool.main, tool.build_parser(), argv) == 0
    assert capsys.readouterr().out.strip().endswith(str(out / '00000_a.png'))
    with Image.open(out / '00000_a.png') as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert('L')))) > 20


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        (['--bands', 'B11,3,2'], 'band B11: not among the 4 bands'),
        (['--bands', '1,2'], 'three bands, or one'),
        (['--phase', 'val'], 'no val_dataloader'),
        (['--start', '5'], 'the dataset has 1 samples'),
    ],
)
def test_one_sentence_for_what_is_wrong(tmp_path, tool, capsys, extra, message):
    argv = [config(tmp_path), '--output-dir', str(tmp_path / 'out'), *extra]
    assert command_line.run_command(tool.main, tool.build_parser(), argv) in (1, 2)
    assert message in capsys.readouterr().err


def test_what_is_shown_is_what_a_training_draws(tmp_path):
    write_tif(tmp_path / 'a.tif', numbers(height=48, width=48))
    dataset = TileDataset(data_root=str(tmp_path), pipeline=PIPELINE)
    steps = samples.run_pipeline(dataset, 0, seed=5, epoch=3)
    assert [name for name, _ in steps] == ['LoadMultiBandImage', 'RandomResizedCrop', 'Pad']
    trained = AddressedDataset(dataset, seed=5)[SampleAddress(0, 3)]['inputs']
    assert np.array_equal(steps[-1][1]['img'].transpose(2, 0, 1), trained.numpy())
    assert samples.choose_steps(steps, 'original')[0][0] == 'LoadMultiBandImage'
    with pytest.raises(ConfigError, match='loads no image'):
        samples.choose_steps([], 'original')


@pytest.mark.parametrize('bands', [1, 2, 3, 4, 13])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_any_image_makes_a_picture(bands, dtype):
    sample = {'img': numbers(bands, 20, 30, dtype).transpose(1, 2, 0)}
    picture = samples.draw_image(sample)
    assert picture.shape == (20, 30, 3)
    assert picture.dtype == np.uint8


def test_natural_colours_and_invalid_pixels():
    image = np.zeros((20, 30, 4), np.uint8)
    image[..., 2] = 200
    valid = np.ones(image.shape, bool)
    valid[:5, :, 0] = False
    sample = {'img': image, 'band_names': ('B02', 'B03', 'B04', 'B08'), 'valid_mask': valid}
    picture = samples.draw_image(sample)
    assert (picture[6:] == (200, 0, 0)).all()
    assert set(map(tuple, picture[:5].reshape(-1, 3))) == {(70, 0, 0), (255, 60, 60)}
    assert (samples.draw_image(sample, ['B08']) == 0).all()
    with pytest.raises(BandMismatchError, match='band B11'):
        samples.draw_image(sample, ['B11', 'B04', 'B03'])


@pytest.mark.parametrize('how', ['mask', 'nan'])
def test_a_sample_without_its_optical_image_shows_the_radar(how):
    image = np.zeros((20, 30, 4), np.float32)
    image[:, 15:, 3] = 7
    sample = {'img': image, 'band_names': ('rgb1', 'rgb2', 'rgb3', 'sar')}
    if how == 'nan':
        image[..., :3] = np.nan
        image[:5, :, 3] = np.nan
    else:
        sample['valid_mask'] = np.zeros(image.shape, bool)
        sample['valid_mask'][5:, :, 3] = True
    picture = samples.draw_image(sample)
    assert (picture[5:, :15] == 0).all() and (picture[5:, 15:] == 255).all()
    assert set(map(tuple, picture[:5].reshape(-1, 3))) == {(70, 0, 0), (255, 60, 60)}
    # Asked for, the optical bands are shown, as they are.
    assert (picture_of_nothing := samples.draw_image(sample, ['1', '2', '3'])).shape == (20, 30, 3)
    assert set(map(tuple, picture_of_nothing.reshape(-1, 3))) == {(70, 0, 0), (255, 60, 60)}


def test_two_dates_in_one_array(tmp_path, tool):
    first = np.random.default_rng(0).random((16, 20, 2), dtype=np.float32) + 9
    second = np.zeros((16, 20, 2), np.float32)
    valid = np.ones((16, 20, 4), bool)
    valid[:4, :, 2] = False
    sample = {
        'img': np.concatenate([first, second], axis=2), 'valid_mask': valid, 'num_dates': 2,
        'band_names': ('VH', 'VV'),
    }  # fmt: skip
    (word, before), (other, after) = samples.draw_dates(sample)
    assert (word, other) == (', date 1', ', date 2')
    assert before.shape == after.shape == (16, 20, 3)
    # Stretched alike: alone, both would be of the same brightness.
    assert before.mean() > 200 and after[4:].max() == 0
    assert set(map(tuple, after[:4].reshape(-1, 3))) == {(70, 0, 0), (255, 60, 60)}
    pictures = samples.draw_dates(sample, ['VV'])
    assert (pictures[1][1] == 0).all()
    lists = {'img': [first, second[:8]]}
    assert [one.shape for _, one in samples.draw_dates(lists)] == [(16, 20, 3), (8, 20, 3)]


def test_pairs_of_radar_images(tmp_path, tool, capsys):
    root = make_sen12_flood(tmp_path / 'data', count=1, size=32)
    path = REPO / 'configs/sar_w_mixmae/sen12_flood'
    path /= 'mixmim-tiny_scratch_pairs_1xb4-2e_sen12-flood-512px.py'
    options = [f'data_root={root}', 'ann_file=', 'data_prefix=train', 'split=None']
    argv = [str(path), '--output-dir', str(tmp_path / 'out'), '--cfg-options']
    argv += [f'train_dataloader.dataset.{one}' for one in options]
    assert command_line.run_command(tool.main, tool.build_parser(), argv) == 0
    assert len(capsys.readouterr().out.split()) == 2


@pytest.mark.parametrize(
    ('label', 'text'), [(1, 'b'), ([0, 1], 'a, b'), ([], 'none'), (7, '7'), (np.array([1]), 'b')]
)
def test_labels_by_name(label, text):
    assert samples.describe_label(label, ('a', 'b')) == text


def samrs_config(folder) -> str:
    """A config of two data sets, with all kinds of label."""
    steps = [
        dict(type='mmrsfm.LoadMultiBandImage'),
        dict(type='mmrsfm.LoadMultiTaskAnnotations'),
        dict(type='mmrsfm.MultiTaskRandomFlip', prob=1.0, direction=['vertical']),
        dict(type='mmrsfm.MultiTaskRandomCrop', size=60),
        dict(type='mmrsfm.PackMultiTaskInputs'),
    ]
    parts = []
    for part in ('sota', 'sior'):
        root = formats.MAKERS[f'samrs_{part}'](folder / part)
        file = f'{part}_rbb_train_ins_segmentation.json'
        parts.append(
            dict(type='mmrsfm.SAMRSDataset', name=part, data_root=str(root), ann_file=file)
        )
    dataset = dict(type='mmrsfm.MultiDataset', datasets=parts, pipeline=steps)
    path = folder / 'config.py'
    path.write_text(
        f"default_scope = 'mmdet'\ntrain_dataloader = dict(dataset={dataset!r})\n"
        "custom_imports = dict(imports=['mmrsfm'])\n"
    )
    return str(path)


@pytest.mark.parametrize('mode', ['transformed', 'pipeline'])
def test_three_kinds_of_label(tmp_path, tool, monkeypatch, capsys, mode):
    drawn = []
    monkeypatch.setattr(
        tool, 'draw_panels', lambda path, panels, legend, *_, **__: drawn.append((panels, legend))
    )
    argv = [samrs_config(tmp_path), '--output-dir', str(tmp_path), '--mode', mode, '--part', '1']
    assert command_line.run_command(tool.main, tool.build_parser(), argv) == 0
    panels, legend = drawn[0]
    titles = [title.split('\n')[0] for title, _ in panels]
    if mode == 'transformed':
        assert titles == ['MultiTaskRandomCrop', 'labels', 'instances: 4', 'rotated boxes: 4']
        plain = panels[0][1]
        assert all((picture != plain).any() for _, picture in panels[1:])
        # Only objects are tinted, and at their places by all three.
        bright = plain.min(axis=2) > 115
        changed = [(picture != plain).any(axis=2) for _, picture in panels[1:]]
        assert (changed[0] & ~bright).mean() < 0.05 < changed[0].mean()
        assert (changed[0] & changed[1]).sum() > 0.95 * changed[0].sum()
    else:
        assert titles == [
            'LoadMultiBandImage', 'LoadMultiTaskAnnotations', 'MultiTaskRandomFlip',
            'MultiTaskRandomCrop',
        ]  # fmt: skip
    assert {name for name, _ in legend} <= set(SAMRS['sior'])
    assert 1 <= len(legend) <= 4
    argv[-1] = '2'
    assert command_line.run_command(tool.main, tool.build_parser(), argv) in (1, 2)
    assert '--part 2: there are 2 data sets' in capsys.readouterr().err


def test_boxes_of_all_kinds_lie_alike():
    turned = np.array([[20.0, 15.0, 12.0, 6.0, np.pi / 2]])
    corners = objects.box_corners(turned)
    assert np.allclose(corners[0].min(0), [17, 9]) and np.allclose(corners[0].max(0), [23, 21])
    flat = np.array([[17.0, 9.0, 23.0, 21.0]])
    picture = np.zeros((30, 40, 3), np.uint8)
    palette = [(250, 10, 10)]
    pictures = [
        objects.draw_boxes(picture, boxes, [0], palette)
        for boxes in (turned, flat, corners.reshape(1, 8))
    ]
    # But for the ends of lines, which OpenCV draws by the order of corners.
    assert all(((one > 125) != (pictures[0] > 125)).sum() <= 24 for one in pictures)
    rows, columns = np.nonzero(pictures[0][..., 0])
    # Lines along the edges, spread over the pixels on both sides.
    assert columns.min() in (16, 17) and rows.min() in (8, 9) and rows.max() in (20, 21, 22)
    tinted = objects.draw_masks(picture, [np.eye(30, 40)], [7], palette, 1.0)
    assert (tinted[np.eye(30, 40) > 0] == 255).all() and tinted.sum() == 30 * 3 * 255
    with pytest.raises(ConfigError, match='4, 5 or 8 numbers'):
        objects.box_corners(np.zeros((2, 3)))
