# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SwinV2: the contract of all backbones, timm's numbers at any size, masks, failure paths."""

import torch

from tests.test_models.backbone_contract import BackboneContract

TINY = dict(embed_dims=16, depths=[1, 2, 2, 1], num_heads=[1, 2, 4, 8])


def awaken(backbone):
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if 'norm' in name or 'bias' in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone


class TestSwinV2(BackboneContract):
    config = dict(type='mmrsfm.SwinV2', arch=TINY, window_size=4, drop_path_rate=0.0)
    strides = (4, 8, 16, 32)
    channels = (16, 32, 64, 128)
    sizes = ((64, 64), (32, 96), (1, 1), (37, 80))

    def build(self, **changes):
        """Blocks start as the identity: without other norms nothing would be tested."""
        backbone = super().build(**changes)
        if 'init_cfg' not in changes:
            awaken(backbone)
        return backbone


class TestAsMaRS(TestSwinV2):
    """The encoder of the pretraining: the last map, normalised; other position windows."""

    config = dict(
        type='mmrsfm.SwinV2', arch=TINY, window_size=4, pretrained_window_sizes=3,
        out_indices=(3,), final_norm=True, drop_path_rate=0.0,
    )  # fmt: skip
    strides = (32,)
    channels = (128,)
