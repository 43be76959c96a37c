# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Image, label map, masks, horizontal and rotated boxes show the same objects after every step."""

import copy
import itertools

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes
from rasterio.features import rasterize
from shapely.geometry import Polygon

from mmrsfm.datasets.multi_task import WindowedMasks, alignment
from mmrsfm.errors import BandMismatchError, ConfigError, DataError
from mmrsfm.randomness import seeded
from mmrsfm.registry import TRANSFORMS
from tests.formats.drawing import rectangles

HEIGHT, WIDTH = 150, 190
FLIPS = ['horizontal', 'vertical', 'diagonal']


def burn(polygon, size) -> np.ndarray:
    """What has its pixel centre in a polygon, (H, W) uint8."""
    return rasterize([(Polygon(polygon), 1)], size, dtype='uint8')


def scene(seed=0, bands=3, dtype=np.float32, height=HEIGHT, width=WIDTH) -> dict:
    """Bright rectangles on black, with all their labels; class k is the object with number k."""
    rng = np.random.default_rng(seed)
    corners = rectangles(rng, height, width, 6, margin=3)
    masks = [burn(one, (height, width)) for one in corners]
    image = np.zeros((height, width, bands), dtype)
    label = np.zeros((height, width), np.uint8)
    for number, mask in enumerate(masks):
        image[mask > 0] = 200
        label[mask > 0] = number + 1
    windows = WindowedMasks.from_arrays(masks, (height, width))
    numbers = np.arange(len(masks))
    quads = torch.from_numpy(corners.reshape(-1, 8).astype(np.float32))
    return {
        'img': image,
        'img_shape': (height, width),
        'ori_shape': (height, width),
        'valid_mask': np.ones(image.shape, bool),
        'gt_seg_map': label,
        'seg_fields': ['gt_seg_map'],
        'gt_bboxes': HorizontalBoxes(torch.from_numpy(windows.boxes())),
        'gt_bboxes_labels': numbers.copy(),
        'gt_ignore_flags': numbers == 1,
        'gt_masks': windows,
        'gt_rboxes': QuadriBoxes(quads).convert_to('rbox'),
        'gt_rboxes_labels': numbers.copy(),
        'gt_r_ignore_flags': numbers == 2,
        'geo': {'crs': 'EPSG:32618', 'transform': (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
    }


def overlap(one, other) -> float:
    return (one & other).sum() / max((one | other).sum(), 1)


def assert_coincide(sample, slack=0.5, fit=0.88):
    """The three kinds of label, and the image, show the same."""
    size = sample['img'].shape[:2]
    label, masks = sample['gt_seg_map'], sample['gt_masks'].to_array() > 0
    assert label.shape == size == masks.shape[1:]
    assert len(sample['gt_bboxes']) == len(masks) == len(sample['gt_bboxes_labels'])
    # Masks and map agree to the pixel.
    for mask, number in zip(masks, sample['gt_bboxes_labels'], strict=True):
        assert (label[mask] == number + 1).all()
    objects = (label > 0) & (label != 255)
    assert np.array_equal(masks.any(axis=0), objects)
    # Horizontal boxes end at the masks.
    for box, mask in zip(sample['gt_bboxes'].tensor.numpy(), masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert box.tolist() == around
    # The image is bright where the masks are, but for the pixels of the edges.
    bright = sample['img'][..., 0] > 100
    assert overlap(bright, objects) > 0.9 or not (bright | objects).any()
    core = cv2.erode(objects.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert bright[core].all()
    # Rotated boxes lie on the masks of the same number, to half a pixel.
    matched = 0
    boxes = RotatedBoxes.rbox2corner(sample['gt_rboxes'].tensor).numpy()
    for corners, number in zip(boxes, sample['gt_rboxes_labels'], strict=True):
        found = np.flatnonzero(sample['gt_bboxes_labels'] == number)
        assert found.size == 1, 'a rotated box whose object is not there'
        mask = masks[found[0]]
        drawn = burn(corners, size) > 0
        inside = (corners >= 0).all() and (corners <= size[::-1]).all()
        if drawn.sum() < 60:
            continue
        assert overlap(drawn, mask) > (min(0.8, fit) if drawn.sum() < 150 else fit)
        if inside:
            centre = np.argwhere(mask).mean(0)[::-1] + 0.5
            assert np.abs(centre - corners.mean(0)).max() < slack
            matched += 1
    return matched


@pytest.mark.parametrize('direction', FLIPS)
def test_flips(direction):
    before, after = scene(), alignment.flip(scene(), direction)
    assert assert_coincide(after) == 6
    axes = {'horizontal': 1, 'vertical': 0, 'diagonal': (0, 1)}[direction]
    assert np.array_equal(np.flip(after['img'], axes), before['img'])
    again = alignment.flip(after, direction)
    assert np.array_equal(again['gt_masks'].to_array(), before['gt_masks'].to_array())
    assert torch.allclose(again['gt_rboxes'].tensor, before['gt_rboxes'].tensor, atol=1e-4)


@pytest.mark.parametrize(
    'size', [(300, 380), (75, 95), (123, 157), (211, 133), (150, 190)]
)  # the fourth is not in proportion
def test_resizing(size):
    sample = alignment.resize(scene(), size)
    # A rectangle that is stretched is none any more.
    assert assert_coincide(sample, fit=0.5 if size == (211, 133) else 0.88) >= 5
    assert sample['scale_factor'] == (size[1] / WIDTH, size[0] / HEIGHT)
    assert sample['img_shape'] == size


def test_stretched_rotated_boxes_are_around_their_objects():
    sample = alignment.resize(scene(), (HEIGHT, 2 * WIDTH))
    corners = RotatedBoxes.rbox2corner(sample['gt_rboxes'].tensor).numpy()
    for box, mask in zip(corners, sample['gt_masks'].to_array(), strict=True):
        grown = Polygon(box).buffer(1.5)
        assert (mask <= burn(grown.exterior.coords, mask.shape)).all()


@pytest.mark.parametrize('seed', range(4))
def test_crops(seed):
    transform = TRANSFORMS.build(dict(type='mmrsfm.MultiTaskRandomCrop', size=(70, 90)))
    with seeded(seed):
        sample = transform(scene(seed))
    assert sample['img'].shape == (70, 90, 3) == (*sample['img_shape'], 3)
    kept = TRANSFORMS.build(dict(type='mmrsfm.MultiTaskFilter'))(sample)
    if kept is not None:
        assert_coincide(kept)
        centres = kept['gt_rboxes'].tensor[:, :2]
        assert ((centres >= 0) & (centres <= torch.tensor([90, 70]))).all()


def test_a_crop_takes_the_centres_of_rotated_boxes():
    sample = scene()
    middle = int(sample['gt_rboxes'].tensor[0, 0])
    alignment.crop(sample, 0, middle + 1, HEIGHT, WIDTH - middle - 1)
    # A part of the object is left, and its mask; the centre of its rotated box is not.
    assert 0 in sample['gt_bboxes_labels'] and 0 not in sample['gt_rboxes_labels']
    assert not sample['gt_ignore_flags'][sample['gt_bboxes_labels'] != 1].any()


@pytest.mark.parametrize('angle', [90, 180, 270, -90, 17.0, -133.3])
@pytest.mark.parametrize('size', [(150, 150), (151, 150)])
def test_turns(angle, size):
    before = scene(height=size[0], width=size[1])
    sample = alignment.rotate(copy.deepcopy(before), angle)
    sample = TRANSFORMS.build(dict(type='mmrsfm.MultiTaskFilter'))(sample)
    # Of a side more, a quarter turn lies between the pixels.
    assert assert_coincide(sample, slack=0.5 if size == (150, 150) else 0.75) >= 1
    outside = sample['gt_seg_map'] == 255
    assert np.array_equal(outside, ~sample['valid_mask'].all(axis=2))
    if size == (150, 150) and angle % 90 == 0:
        assert not outside.any()
        # np.rot90 turns against the clock.
        assert np.array_equal(sample['gt_seg_map'], np.rot90(before['gt_seg_map'], -angle / 90))
        assert np.allclose(sample['img'], np.rot90(before['img'], -angle / 90), atol=1e-3)


def test_turns_go_clockwise():
    sample = {'img': np.zeros((9, 9, 6), np.float32), 'img_shape': (9, 9)}
    sample['img'][1, 4] = 1  # above the middle
    sample['gt_rboxes'] = RotatedBoxes(torch.tensor([[4.5, 1.5, 4.0, 1.0, 0.0]]))
    sample['gt_rboxes_labels'], sample['gt_r_ignore_flags'] = np.zeros(1, int), np.zeros(1, bool)
    alignment.rotate(sample, 90, fill=7)
    assert sample['img'].shape == (9, 9, 6)
    assert np.argwhere(sample['img'] > 0.9).tolist() == [[4, 7, band] for band in range(6)]
    corners = RotatedBoxes.rbox2corner(sample['gt_rboxes'].tensor)[0]
    assert torch.allclose(corners.min(0).values, torch.tensor([7.0, 2.5]), atol=1e-4)
    assert torch.allclose(corners.max(0).values, torch.tensor([8.0, 6.5]), atol=1e-4)


def test_padding():
    sample = alignment.pad(scene(), 200, 210, fill=3)
    assert assert_coincide(sample) == 6
    assert (sample['gt_seg_map'][HEIGHT:] == 255).all() and (sample['img'][:, WIDTH:] == 3).all()
    assert not sample['valid_mask'][HEIGHT:].any()
    assert sample['img_shape'] == (HEIGHT, WIDTH) and sample['pad_shape'] == (200, 210)
    assert alignment.pad(scene(), 10, 10)['img'].shape == (HEIGHT, WIDTH, 3)


CHAIN = [
    dict(type='mmrsfm.MultiTaskRandomFlip', prob=0.75, direction=FLIPS),
    dict(type='mmrsfm.MultiTaskRandomResize', scale=(150, 150), ratio_range=(0.5, 2.0)),
    dict(type='mmrsfm.MultiTaskRandomCrop', size=150),
    dict(type='mmrsfm.MultiTaskRandomRotate', prob=0.5, max_angle=60),
    dict(type='mmrsfm.MultiTaskFilter'),
    dict(type='mmrsfm.MultiTaskPad', size=150),
]


@pytest.mark.parametrize('dtype', [np.float32, np.uint8])
@pytest.mark.parametrize('seed', range(6))
def test_a_chain_of_all(seed, dtype):
    sample = scene(seed, dtype=dtype)
    with seeded(seed):
        for step in CHAIN:
            sample = TRANSFORMS.build(step)(sample)
            if sample is None:
                return
    assert sample['img'].shape == (150, 150, 3) and sample['img'].dtype == dtype
    assert sample['gt_seg_map'].shape == (150, 150)
    assert_coincide(sample)
    # The georeference too: every bright pixel comes from an object.
    a, b, c, d, e, f = sample['geo']['transform']
    rows, columns = np.argwhere(sample['gt_seg_map'] == 1).T + 0.5
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    source = scene(seed)['gt_seg_map']
    assert (source[y.astype(int), x.astype(int)] == 1).mean() > (0.9 if x.size > 50 else 0)


def test_samples_without_some_of_the_labels():
    for absent in ('gt_masks', 'gt_bboxes', 'gt_rboxes', 'gt_seg_map'):
        sample = scene()
        if absent == 'gt_bboxes':
            for key in alignment.INSTANCE_KEYS:
                sample.pop(key)
        sample.pop(absent, None)
        if absent == 'gt_seg_map':
            sample['seg_fields'] = []
        with seeded(3):
            for step in CHAIN:
                sample = TRANSFORMS.build(step)(sample)
        assert absent not in sample
    sample = scene()
    sample['gt_masks'] = sample['gt_masks'].to_bitmap()
    with pytest.raises(ConfigError, match='LoadMultiTaskAnnotations'):
        alignment.flip(sample, 'horizontal')


def test_masks_one_after_the_other():
    masks = scene()['gt_masks']
    assert np.array_equal(list(masks.arrays()), masks.to_array())


def test_filter():
    build = TRANSFORMS.build
    sample = alignment.crop(scene(), 0, 0, 3, 3)
    assert len(sample['gt_bboxes']) == 0
    assert build(dict(type='mmrsfm.MultiTaskFilter'))(sample) is sample  # had none before
    sample = scene()
    areas = sorted(sample['gt_masks'].areas)
    kept = build(dict(type='mmrsfm.MultiTaskFilter', min_area=areas[3]))(sample)
    assert len(kept['gt_bboxes']) == 3 == len(kept['gt_masks']) and len(kept['gt_rboxes']) == 6
    assert build(dict(type='mmrsfm.MultiTaskFilter', min_area=1e6))(scene()) is None
    keep = dict(type='mmrsfm.MultiTaskFilter', min_side=999, on_empty='keep')
    assert len(build(keep)(scene())['gt_bboxes']) == 0
    with pytest.raises(ConfigError, match="'reject' or 'keep'"):
        build(dict(type='mmrsfm.MultiTaskFilter', on_empty='drop'))
    with pytest.raises(ConfigError, match='prob'):
        build(dict(type='mmrsfm.MultiTaskRandomRotate', prob=2))
    with pytest.raises(ConfigError, match='angles is empty'):
        build(dict(type='mmrsfm.MultiTaskRandomRotate', angles=[]))


class TestPhotometricDistortion:
    def run(self, image, seed, **options):
        transform = TRANSFORMS.build(dict(type='mmrsfm.PhotometricDistortion', **options))
        with seeded(seed):
            return transform({'img': image.copy()})['img']

    @pytest.mark.parametrize('dtype', [np.uint8, np.float32])
    def test_colours_stay_colours(self, dtype):
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (20, 20, 3)).astype(dtype)
        chroma = np.ptp(image.astype(float), axis=2).mean()
        changed = 0
        for seed in range(40):
            out = self.run(image, seed)
            assert out.dtype == dtype and out.shape == image.shape
            assert out.min() >= 0 and out.max() <= 255
            # The published pipeline leaves none for a fifth of the float images.
            assert np.ptp(out.astype(float), axis=2).mean() > 0.2 * chroma
            changed += not np.array_equal(out, image)
        assert 30 <= changed < 40

    def test_floats_and_bytes_agree(self):
        image = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        for seed in range(12):
            ours, theirs = self.run(image, seed), self.run(image.astype(np.float32), seed)
            assert np.abs(ours - theirs).max() <= 0.5001

    @pytest.mark.parametrize('order', ['bgr', 'rgb'])
    @pytest.mark.parametrize('steps', itertools.product([0, 1], repeat=5))
    def test_floats_are_distorted_as_bytes_are(self, monkeypatch, steps, order):
        """Against the arithmetic in 8 bits that mmseg's transform has, of the same draws."""
        brighten, first, contrast, saturate, turn = steps
        shift, factor, saturation, hue = -11.3, 1.31, 0.62, 13  # the hue in OpenCV's half degrees
        image = np.random.default_rng(3).integers(0, 256, (32, 32, 3)).astype(np.uint8)

        def in_bytes(values, alpha=1.0, beta=0.0):
            return np.clip(values.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

        theirs = in_bytes(image, beta=shift) if brighten else image
        if first and contrast:
            theirs = in_bytes(theirs, factor)
        hsv = cv2.cvtColor(theirs, cv2.COLOR_BGR2HSV)
        if saturate:
            hsv[..., 1] = in_bytes(hsv[..., 1], saturation)
        if turn:
            hsv[..., 0] = (hsv[..., 0].astype(int) + hue) % 180
        if saturate or turn:
            theirs = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        if not first and contrast:
            theirs = in_bytes(theirs, factor)
        # What is drawn, in the order in which it is.
        coins = [brighten, first, *[contrast] * first, saturate, turn, *[contrast] * (1 - first)]
        numbers = [
            *[shift] * brighten, *[factor] * (first * contrast), *[saturation] * saturate,
            *[2 * hue if order == 'rgb' else -2 * hue] * turn,
            *[factor] * ((1 - first) * contrast),
        ]  # fmt: skip
        monkeypatch.setattr(np.random, 'randint', lambda *_: coins.pop(0))
        monkeypatch.setattr(np.random, 'uniform', lambda *_: numbers.pop(0))
        ours = image if order == 'bgr' else image[..., ::-1]
        transform = TRANSFORMS.build(dict(type='mmrsfm.PhotometricDistortion'))
        ours = transform({'img': ours.astype(np.float32)})['img']
        assert not coins and not numbers
        wrong = np.abs((ours if order == 'bgr' else ours[..., ::-1]) - theirs)
        # They cut off fractions, up to twice, and their hues are whole.
        assert wrong.mean() < 2 and wrong.max() < (10 if saturate or turn else 2.5)

    def test_other_ranges_and_bands(self):
        image = np.random.default_rng(2).random((8, 8, 5)).astype(np.float32)
        options = dict(saturation=None, max_value=1.0, brightness=0.1)
        assert any(not np.array_equal(self.run(image, s, **options), image) for s in range(5))
        with pytest.raises(BandMismatchError, match='three bands, got 5'):
            self.run(image, 0)
        with pytest.raises(DataError, match=r'up to 3000 would be cut off at max_value=255'):
            self.run(np.full((4, 4, 9), 3000, np.uint16), 0, saturation=None)
        for wrong in (dict(contrast=(2, 1)), dict(max_value=0)):
            with pytest.raises(ConfigError):
                self.run(image, 0, **wrong)
