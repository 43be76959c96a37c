# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pixel-shuffle head."""

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.models.heads import PixelShuffleHead
from mmrsfm.registry import MODELS


def test_a_token_makes_the_pixels_of_its_cell():
    head = MODELS.build(dict(type='mmrsfm.PixelShuffleHead', in_channels=5, out_channels=3))
    x = torch.randn(2, 5, 2, 3)
    image = head(x)
    assert image.shape == (2, 3, 64, 96)
    moved = x.clone()
    moved[..., 1, 2] += 1.0
    changed = (head(moved) != image).any(1)
    assert changed[:, 32:, 64:].all()
    assert not changed[:, :32].any()
    assert not changed[..., :64].any()
    # Row by row within the cell, channel by channel.
    flat = head.projection(x)[0, :, 1, 0]
    torch.testing.assert_close(image[0, :, 32:, :32].flatten(), flat)


@pytest.mark.parametrize('wrong', [dict(stride=0), dict(in_channels=0), dict(out_channels=-1)])
def test_sizes_are_checked(wrong):
    with pytest.raises(ConfigError, match='at least 1'):
        PixelShuffleHead(**{**dict(in_channels=4, out_channels=1), **wrong})
