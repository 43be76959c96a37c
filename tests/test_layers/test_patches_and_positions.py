# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Patches, masks and position tables."""

import numpy as np
import pytest
import torch
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import gather_patches, mask_from_noise, patchify, unpatchify
from mmrsfm.layers.position import PositionTableResizer, sincos_position_table


def test_patchify_order_and_inverse():
    images = torch.randn(2, 5, 12, 16)
    patches = patchify(images, (6, 4))
    assert patches.shape == (2, 8, 6 * 4 * 5)
    # Patch row 1, column 2; pixel row 3, column 1; channel 4.
    assert patches[0, 1 * 4 + 2, (3 * 4 + 1) * 5 + 4] == images[0, 4, 6 + 3, 2 * 4 + 1]
    assert torch.equal(unpatchify(patches, (2, 4), (6, 4)), images)


def test_gathered_patches_are_what_a_convolution_sees():
    images, ids = torch.randn(2, 5, 12, 16), torch.tensor([[7, 0, 3], [1, 1, 6]])
    convolution = nn.Conv2d(5, 9, (6, 4), (6, 4))
    expected = convolution(images).flatten(2).transpose(1, 2)
    gathered = gather_patches(images, ids, (6, 4))
    ours = gathered @ convolution.weight.flatten(1).T + convolution.bias
    for row in range(2):
        torch.testing.assert_close(ours[row], expected[row, ids[row]])
    # In the order of patchify.
    index = ids[..., None].expand(-1, -1, 6 * 4 * 5)
    expected = patchify(images, (6, 4)).gather(1, index)
    assert torch.equal(gather_patches(images, ids, (6, 4), channels_last=True), expected)


def test_part_of_a_patch_is_an_error():
    with pytest.raises(ConfigError, match='whole patches'):
        patchify(torch.randn(1, 1, 12, 15), (4, 4))


@pytest.mark.parametrize('ratio', [0.0, 0.5, 0.75, 0.9])
def test_mask(ratio):
    noise = torch.rand(3, 20)
    ids_keep, ids_restore, mask = mask_from_noise(noise, ratio)
    keep = int(20 * (1 - ratio))
    assert ids_keep.shape == (3, keep)
    assert (mask.sum(1) == 20 - keep).all()
    for row in range(3):
        assert set(ids_keep[row].tolist()) == set((mask[row] == 0).nonzero().flatten().tolist())
        assert torch.equal(noise[row, ids_keep[row]], noise[row].sort().values[:keep])
        order = torch.cat([ids_keep[row], torch.full((20 - keep,), -1)])
        restored = order[ids_restore[row]]
        assert (restored[mask[row] == 0] == (mask[row] == 0).nonzero().flatten()).all()
        assert (restored[mask[row] == 1] == -1).all()


def test_position_table_has_columns_first():
    table = sincos_position_table((2, 3), 8)
    omega = np.array([1.0, 0.01])
    for row in range(2):
        for column in range(3):
            expected = np.concatenate(
                [f(n * omega) for n in (column, row) for f in (np.sin, np.cos)]
            )
            ours = table[0, 1 + row * 3 + column].numpy()
            np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert table[0, 0].abs().max() == 0
    assert sincos_position_table((2, 3), 8, 0).shape == (1, 6, 8)


def test_resizer_keeps_extra_tokens_and_smooth_values():
    table = sincos_position_table((4, 4), 8)
    resized = PositionTableResizer()(table, (4, 4), (8, 6))
    assert resized.shape == (1, 49, 8)
    assert torch.equal(resized[:, 0], table[:, 0])
    assert resized.abs().max() < 1.3


def test_resizer_takes_inference_tensors():
    with torch.inference_mode():
        table = sincos_position_table((4, 4), 8)
    resizer = PositionTableResizer()
    assert resizer(table, (4, 4), (2, 2)).shape == (1, 5, 8)
    assert not resizer(table, (4, 4), (2, 2)).is_inference()
