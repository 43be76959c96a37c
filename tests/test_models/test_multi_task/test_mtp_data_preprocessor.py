# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Images, masks and label maps are padded alike."""

import pytest
import torch

from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.registry import MODELS
from tests.test_models.test_multi_task import tiny
from tests.test_models.test_multi_task.tiny import sample


def build(**arguments):
    return MODELS.build(dict(type='mmrsfm.MTPDataPreprocessor', **arguments))


def batch():
    return tiny.collate(
        [
            sample(seed=1, size=(40, 64)),
            sample('mine', 2, seed=2, size=(64, 30), tasks=('semantic',)),
            sample('mine', 2, seed=3, size=(33, 33), tasks=('rotated', 'instance')),
        ]
    )


def test_all_labels_are_padded_like_the_images():
    data = batch()
    before = [one.gt_sem_seg.data.clone() for one in data['data_samples'][:2]]
    boxes = data['data_samples'][2].r_gt_instances.bboxes.tensor.clone()
    found = build(size=96)(data, True)
    assert found['inputs'].shape == (3, 3, 96, 96)
    for one, label in zip(found['data_samples'], before, strict=False):
        height, width = label.shape[-2:]
        padded = one.gt_sem_seg.data
        assert padded.shape == (1, 96, 96) and padded.dtype == torch.int64
        assert torch.equal(padded[:, :height, :width], label)
        rest = padded.clone()
        rest[:, :height, :width] = 255
        assert (rest == 255).all()
    for number in (0, 2):
        masks = found['data_samples'][number].gt_instances.masks
        assert (masks.height, masks.width) == (96, 96)
    assert torch.equal(found['data_samples'][2].r_gt_instances.bboxes.tensor, boxes)
    assert {one.pad_shape for one in found['data_samples']} == {(96, 96)}
    assert found['data_samples'][0].img_shape == (40, 64)


def test_the_published_defect_is_an_option():
    """Labels reach to the next multiple of 32 of their data set, images to the full size."""
    found = build(size=128, pad_seg='as_published')(batch(), True)
    assert found['inputs'].shape == (3, 3, 128, 128)
    shapes = [tuple(one.gt_sem_seg.data.shape) for one in found['data_samples'][:2]]
    assert shapes == [(1, 64, 64), (1, 64, 64)]
    # What that means for the loss: a prediction of 128 pixels is squeezed onto 64.
    model = tiny.build(
        tasks=('semantic',),
        data_preprocessor=dict(type='mmrsfm.MTPDataPreprocessor', size=128, pad_seg='as_published'),
    )
    assert tiny.run(model, [sample(seed=1), sample('mine', 2)])[0] > 0


def test_any_size_bands_and_labels():
    preprocessor = build(
        pad_size_divisor=32, mean=[1.0, 2.0], std=[2.0, 2.0], channels_last=True, pad_value=7
    )
    image = torch.full((2, 40, 33), 5, dtype=torch.uint8)
    found = preprocessor(dict(inputs=[image], data_samples=None))
    assert found['data_samples'] is None
    assert found['inputs'].shape == (1, 2, 64, 64)
    assert found['inputs'].is_contiguous(memory_format=torch.channels_last)
    assert found['inputs'][0, :, 0, 0].tolist() == [2.0, 1.5]
    assert found['inputs'][0, 0, 50, 50] == 7
    wide = build(size=(32, 96))(dict(inputs=[torch.zeros(1, 64, 20)], data_samples=None))
    assert wide['inputs'].shape == (1, 1, 64, 96)


def test_labels_when_testing_are_those_of_the_original():
    data = tiny.collate([sample(size=(48, 48))])
    found = build(size=64)(data, False)
    assert found['data_samples'][0].gt_sem_seg.data.shape == (1, 48, 48)
    assert found['data_samples'][0].batch_input_shape == (64, 64)


def test_labels_of_another_size_than_the_image():
    data = tiny.collate([sample(seed=4, size=(48, 48))])
    data['inputs'][0] = data['inputs'][0][:, :40]
    with pytest.raises(ImageSizeError, match=r'sota/4\.png: masks of 48 x 48 .* of 40 x 48'):
        build()(data, True)
    del data['data_samples'][0].gt_instances
    with pytest.raises(ImageSizeError, match='a label map of 48 x 48'):
        build()(data, True)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(dict(pad_seg=False), "True or 'as_published'"), (dict(size=(1, 2, 3)), 'height and width'),
     (dict(size='64'), 'height and width')],
)  # fmt: skip
def test_contradictions(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(**arguments)
