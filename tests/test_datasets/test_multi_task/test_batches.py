# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packed samples of several sizes, padded to a batch: labels stay on their objects."""

import numpy as np
import torch

from mmrsfm.registry import MODELS, TRANSFORMS
from tests.test_datasets.test_multi_task.test_alignment import burn, overlap, scene


def test_labels_are_padded_like_the_images():
    pack = TRANSFORMS.build(dict(type='mmrsfm.PackMultiTaskInputs'))
    items = [pack({**scene(k, height=h, width=w), 'dataset_name': 'a', 'tasks': ()})
             for k, (h, w) in enumerate([(150, 190), (120, 140)])]  # fmt: skip
    preprocessor = MODELS.build(
        dict(type='mmrsfm.MTPDataPreprocessor', size=224, mean=[0.0] * 3, std=[1.0] * 3)
    )
    batch = {key: [item[key] for item in items] for key in ('inputs', 'data_samples')}
    batch = preprocessor(batch, training=True)
    assert batch['inputs'].shape == (2, 3, 224, 224)
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        height, width = sample.img_shape
        label = sample.gt_sem_seg.data[0]
        assert label.shape == (224, 224)
        assert (label[height:] == 255).all() and (label[:, width:] == 255).all()
        objects = (label > 0) & (label != 255)
        assert torch.equal(image[0] > 100, objects)
        masks = np.concatenate([sample.gt_instances.masks.masks,
                                sample.ignored_instances.masks.masks])  # fmt: skip
        assert np.array_equal(masks.any(axis=0), objects.numpy())
        boxes = sample.r_gt_instances.bboxes
        corners = boxes.rbox2corner(boxes.tensor).numpy()
        for number, one in zip(sample.r_gt_instances.labels.tolist(), corners, strict=True):
            assert overlap(burn(one, (224, 224)) > 0, label.numpy() == number + 1) > 0.85
