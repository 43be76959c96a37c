# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the multi-task model predicts, and where on the original image."""

import pytest
import torch

from mmrsfm.errors import ConfigError
from tests.test_models.test_multi_task import tiny
from tests.test_models.test_multi_task.tiny import sample


@pytest.fixture(scope='module')
def model():
    return tiny.build().eval()


def predict(model, items, **kwargs):
    data = model.data_preprocessor(tiny.collate(items), False)
    return model.predict(data['inputs'], data['data_samples'], **kwargs)


def test_each_image_gets_what_its_data_set_has(model):
    items = [sample('mine', 2, seed=1, tasks=()), sample(seed=2), sample('mine', 2, seed=3)]
    found = predict(model, items)
    assert [one.img_path for one in found] == ['mine/1.png', 'sota/2.png', 'mine/3.png']
    assert ['pred_instances' in one for one in found] == [False, True, False]
    for one, classes in zip(found, (2, 3, 2), strict=True):
        assert one.pred_sem_seg.data.shape == (1, 64, 64)
        assert one.pred_sem_seg.data.max() <= classes
        assert one.pred_r_instances.bboxes.shape == (5, 5)
        assert one.pred_r_instances.labels.max() < classes
    assert found[1].pred_instances.masks.shape == (5, 64, 64)
    assert found[1].pred_instances.bboxes.shape == (5, 4)
    # One call for all is what each gets alone.
    alone = predict(model, items[1:2])[0]
    torch.testing.assert_close(alone.pred_instances.bboxes, found[1].pred_instances.bboxes)
    assert torch.equal(alone.pred_sem_seg.data, found[1].pred_sem_seg.data)


def test_predictions_are_for_the_original_image(model):
    """An image of 96 x 80 that was resized to 48 x 40 and is padded to 64 x 64."""
    items = [sample(size=(48, 40), ori_shape=(96, 80), scale_factor=(0.5, 0.5), seed=5)]
    big = predict(model, items)[0]
    assert big.pred_sem_seg.data.shape == (1, 96, 80)
    assert big.pred_instances.masks.shape[1:] == (96, 80)
    boxes, rotated = big.pred_instances.bboxes.clone(), big.pred_r_instances.bboxes.clone()
    small = predict(model, items, rescale=False)[0]
    assert small.pred_sem_seg.data.shape == (1, 48, 40)
    torch.testing.assert_close(boxes, 2 * small.pred_instances.bboxes)
    torch.testing.assert_close(rotated[:, :4], 2 * small.pred_r_instances.bboxes[:, :4])


def test_no_proposal_at_all(model, monkeypatch):
    for task in ('instance', 'rotated'):
        monkeypatch.setitem(model.decoders[task].test_cfg.rpn, 'min_bbox_size', 1e6)
    found = predict(model, [sample(seed=1), sample('mine', 2, seed=2)])
    assert len(found[0].pred_instances.masks) == len(found[0].pred_instances.bboxes) == 0
    assert [len(one.pred_r_instances.scores) for one in found] == [0, 0]


def test_images_without_a_name_where_there_is_one_data_set(model):
    single = tiny.build([dict(name='mine', classes=2)], tasks=('rotated',), init=False).eval()
    items = [sample('mine', 2)]
    del items[0]['data_samples'].dataset_name
    assert len(predict(single, items)[0].pred_r_instances.bboxes)


def test_modes(model):
    data = model.data_preprocessor(tiny.collate([sample(), sample(seed=1)]), False)
    maps = model(data['inputs'])
    assert [tuple(x.shape) for x in maps] == [(2, 24, side, side) for side in (16, 8, 4, 2)]
    with pytest.raises(ConfigError, match='has no samples'):
        model(data['inputs'], mode='loss')
    with pytest.raises(ConfigError, match="mode 'train' is none of"):
        model(**data, mode='train')
