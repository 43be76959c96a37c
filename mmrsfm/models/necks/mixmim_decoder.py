# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoder of MixMIM (arXiv 2205.13137): two sequences of mask tokens a mixed image."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.utils import to_2tuple
from torch import Tensor, nn

from mmrsfm.layers.patches import patch_grid
from mmrsfm.layers.position import PositionTableResizer, sincos_position_table
from mmrsfm.layers.transformer import ViTLayer, init_linear_as_mae
from mmrsfm.registry import MODELS


@MODELS.register_module()
class MixMIMDecoder(MAEPretrainDecoder):
    """Decodes each of the two images of a mixture, for any number of bands and any grid.

    Parameter names are those of mmpretrain's ``MixMIMPretrainDecoder``, which predicts three bands
    only, has another eps, and a position table with rows and columns exchanged.

    Args:
        img_size: Size of the images in pixels, one number or height and width.
        encoder_stride: Pixels along the edge of a token of the encoder.
        in_chans: Number of bands.
        embed_dim: Number of channels of the encoder's output.
        decoder_embed_dim: Number of channels of the decoder.
        decoder_depth: Number of layers.
        decoder_num_heads: Number of attention heads.
        mlp_ratio: Hidden channels of the feed-forward branch, by ``decoder_embed_dim``.
        norm_cfg: Normalisation; default: LayerNorm with the eps of the published SAR-W-MixMAE,
            1e-5 (arXiv 2503.01181).
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the images are not made of whole tokens.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 128,
        encoder_stride: int = 32,
        in_chans: int = 2,
        embed_dim: int = 1024,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        norm_cfg = norm_cfg or dict(type='LN', eps=1e-5)
        self.grid = patch_grid(to_2tuple(img_size), to_2tuple(encoder_stride))
        super().__init__(
            num_patches=self.grid[0] * self.grid[1],
            embed_dim=embed_dim,
            decoder_embed_dim=decoder_embed_dim,
            decoder_depth=0,
            predict_feature_dim=encoder_stride**2 * in_chans,
            norm_cfg=norm_cfg,
            init_cfg=init_cfg,
        )
        self.encoder_stride = encoder_stride
        self.decoder_blocks = ModuleList(
            [
                ViTLayer(
                    decoder_embed_dim,
                    decoder_num_heads,
                    int(mlp_ratio * decoder_embed_dim),
                    norm_cfg=norm_cfg,
                )
                for _ in range(decoder_depth)
            ]
        )
        table = sincos_position_table(self.grid, decoder_embed_dim, num_extra_tokens=0)
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        self._resizer = PositionTableResizer()

    def init_weights(self) -> None:
        """Initialises as published, then applies ``init_cfg``, whatever its type."""
        if not self.is_init:
            init_linear_as_mae(self)
            nn.init.trunc_normal_(self.mask_token, std=0.02)
            for module in self.modules():
                if module is not self and isinstance(module, BaseModule):
                    module.is_init = True
        BaseModule.init_weights(self)

    def train(self, mode: bool = True) -> MixMIMDecoder:
        """Switches between training and evaluation."""
        super().train(mode)
        self._resizer.clear()
        return self

    def forward(self, x: Tensor, mask: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Decodes mixtures into two sequences each, with mask tokens for what the other showed.

        Args:
            x: The encoder's tokens of B mixtures, shape (B, L, D).
            mask: Shape (B, L) or (1, L), bool: True where the mixture shows the second image.
            grid: Rows and columns of tokens; ``None``: as the decoder was made.

        Returns:
            The embedding after the last normalisation, shape (2B, L, decoder_embed_dim): first of
            the B first images, with mask tokens where ``mask`` is True, then of the B second ones,
            with mask tokens elsewhere. :meth:`predict` makes pixels of it.
        """
        x = self.decoder_embed(x)
        token = self.mask_token.to(x.dtype)
        hidden = mask[..., None]
        x = torch.cat([torch.where(hidden, token, x), torch.where(hidden, x, token)])
        x = x + self._resizer(self.decoder_pos_embed, self.grid, grid or self.grid, 0)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)

    def predict(self, embedding: Tensor) -> Tensor:
        """Pixels of tokens, each of which is predicted by itself.

        Args:
            embedding: What :meth:`forward` returned, or a choice of its tokens, (..., channels).

        Returns:
            Shape (..., S * S * C), S the stride: pixel row, pixel column, channel.
        """
        return self.decoder_pred(embedding)
