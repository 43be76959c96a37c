# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The convolutional decoder of MP-MAE, which all modalities share."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.backbones.convnext import ConvNeXtBlock
from torch import Tensor, nn

from mmrsfm.registry import MODELS


@MODELS.register_module()
class MPMAEDecoder(BaseModule):
    """Puts mask tokens where patches were hidden, and lets ConvNeXt V2 blocks look around.

    As in FCMAE (Woo et al., "ConvNeXt V2", CVPR 2023, arXiv 2301.00808) and MP-MAE (MMEarth, ECCV
    2024, arXiv 2405.02771). MP-MAE evaluates one and the same decoder for each of its modalities;
    what it computes does not depend on the modality, so that here it runs once.

    Names of parameters: ``proj``, ``mask_token`` (1, D, 1, 1), ``blocks.<i>`` as of mmpretrain's
    ConvNeXtBlock. GRN's statistics are those of each sample, over all patches.

    Args:
        in_channels: Channels of the encoder's last map.
        embed_dims: Channels D of the decoder.
        depth: Number of blocks.
        grn_eps: Of GRN; published: 1e-4 (elsewhere 1e-6).
        conv_std: Standard deviation of the first weights of convolutions; published: 1.0 (as in
            FCMAE, whose ``trunc_normal_`` of convolutions has torch's default).
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int = 512,
        depth: int = 1,
        grn_eps: float = 1e-4,
        conv_std: float = 0.02,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.embed_dims = embed_dims
        self.conv_std = conv_std
        self.proj = nn.Conv2d(in_channels, embed_dims, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dims, 1, 1))
        self.blocks = ModuleList(
            [
                ConvNeXtBlock(embed_dims, layer_scale_init_value=0.0, use_grn=True)
                for _ in range(depth)
            ]
        )
        for block in self.blocks:
            block.grn.eps = grn_eps

    def init_weights(self) -> None:
        """Initialises as published, but for ``conv_std``, then applies ``init_cfg``."""
        if not self.is_init:
            nn.init.normal_(self.mask_token, std=0.02)
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    std = self.conv_std if isinstance(module, nn.Conv2d) else 0.02
                    nn.init.trunc_normal_(module.weight, std=std, a=-2.0, b=2.0)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
                if module is not self and isinstance(module, BaseModule):
                    module.is_init = True
        super().init_weights()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Decodes.

        Args:
            x: The encoder's last map, shape (B, C, h, w).
            mask: Shape (B, L), L = h * w row by row, 1 (or True) where the patch was hidden.

        Returns:
            Shape (B, L, D).
        """
        hidden = mask.view(len(x), 1, *x.shape[-2:]).bool()
        x = self.proj(x)
        x = torch.where(hidden, self.mask_token.to(x.dtype), x)
        for block in self.blocks:
            x = block(x)
        return x.flatten(2).transpose(1, 2)
