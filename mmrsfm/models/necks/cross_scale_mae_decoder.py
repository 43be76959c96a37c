# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoder of Cross-Scale MAE (arXiv 2401.15855), and its cross-scale predictor."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.necks import MAEPretrainDecoder
from mmpretrain.models.utils import to_2tuple
from torch import Tensor, nn

from mmrsfm.layers.patches import patch_grid
from mmrsfm.layers.position import PositionTableResizer, sincos_position_table
from mmrsfm.layers.transformer import ViTLayer, check_norm_style, init_linear_as_mae
from mmrsfm.registry import MODELS


@MODELS.register_module()
class CrossScaleMAEDecoder(MAEPretrainDecoder):
    """MAE's decoder, which also hands out its embedding, takes any grid, and has a norm style.

    Parameter names are those of mmpretrain's ``MAEPretrainDecoder``.

    Args:
        img_size: Size of the images in pixels, one number or height and width.
        patch_size: Size of a patch in pixels.
        in_chans: Number of bands.
        embed_dim: Number of channels of the encoder.
        decoder_embed_dim: Number of channels of the decoder.
        decoder_depth: Number of layers.
        decoder_num_heads: Number of attention heads.
        mlp_ratio: Hidden channels of the feed-forward branch, by ``decoder_embed_dim``.
        norm_style: ``'pre'`` or ``'post'``, see :class:`mmrsfm.layers.transformer.ViTLayer`.
        norm_cfg: Normalisation in the layers; default: LayerNorm with the eps of ``norm_style``.
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 128,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_style: str = 'pre',
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        check_norm_style(norm_style)
        patch = to_2tuple(patch_size)
        self.grid = patch_grid(to_2tuple(img_size), patch)
        grid = self.grid
        super().__init__(
            num_patches=grid[0] * grid[1],
            embed_dim=embed_dim,
            decoder_embed_dim=decoder_embed_dim,
            decoder_depth=0,
            predict_feature_dim=patch[0] * patch[1] * in_chans,
            init_cfg=init_cfg,
        )
        self.decoder_embed_dim = decoder_embed_dim
        self.norm_style = norm_style
        self.decoder_blocks = ModuleList(
            [
                ViTLayer(
                    decoder_embed_dim,
                    decoder_num_heads,
                    int(mlp_ratio * decoder_embed_dim),
                    norm_style=norm_style,
                    norm_cfg=norm_cfg,
                )
                for _ in range(decoder_depth)
            ]
        )
        self.decoder_pos_embed.data.copy_(sincos_position_table(grid, decoder_embed_dim))
        self._resizer = PositionTableResizer()

    def init_weights(self) -> None:
        """Initialises as MAE does, then applies ``init_cfg``, whatever its type."""
        if not self.is_init:
            init_linear_as_mae(self)
            nn.init.normal_(self.mask_token, std=0.02)
            for module in self.modules():
                if module is not self and isinstance(module, BaseModule):
                    module.is_init = True
        BaseModule.init_weights(self)

    def train(self, mode: bool = True) -> CrossScaleMAEDecoder:
        """Switches between training and evaluation."""
        super().train(mode)
        self._resizer.clear()
        return self

    def forward(
        self, x: Tensor, ids_restore: Tensor, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """Decodes the visible tokens into an embedding of every patch.

        Args:
            x: Class token and visible patches, shape (B, 1 + K, D).
            ids_restore: Shape (B, L), puts (visible, removed) back in place.
            grid: Rows and columns of patches; ``None``: as the decoder was made.

        Returns:
            The embedding after the last normalisation, shape (B, 1 + L, decoder_embed_dim);
            :meth:`predict` makes pixels of it.
        """
        x = self.decoder_embed(x)
        removed = self.mask_token.expand(x.shape[0], ids_restore.shape[1] + 1 - x.shape[1], -1)
        sequence = torch.cat([x[:, 1:], removed.to(x.dtype)], dim=1)
        index = ids_restore[..., None].expand(-1, -1, x.shape[2])
        x = torch.cat([x[:, :1], sequence.gather(1, index)], dim=1)
        x = x + self._resizer(self.decoder_pos_embed, self.grid, grid or self.grid)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)

    def predict(self, embedding: Tensor) -> Tensor:
        """Pixels of every patch.

        Args:
            embedding: What :meth:`forward` returned.

        Returns:
            Shape (B, L, P * Q * C): pixel row, pixel column, channel.
        """
        return self.decoder_pred(embedding[:, 1:])
