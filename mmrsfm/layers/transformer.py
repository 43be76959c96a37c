# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The transformer layer of mmpretrain with the normalisation before or after the branches."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mmrsfm.errors import ConfigError

NORM_EPS = {'pre': 1e-6, 'post': 1e-5}


class ViTLayer(TransformerEncoderLayer):
    """One layer of a vision transformer; parameter names are those of mmpretrain.

    * ``norm_style='pre'``: ``x = x + attn(ln1(x)); x = x + ffn(ln2(x))`` (ViT, timm), eps 1e-6;
    * ``norm_style='post'``: ``x = ln1(x + attn(x)); x = ln2(x + ffn(x))`` (xFormers), eps 1e-5.

    The two share names and shapes of all parameters, and are different functions: a checkpoint
    of one style gives nonsense in the other.

    Args:
        embed_dims: Number of channels.
        num_heads: Number of attention heads.
        feedforward_channels: Number of hidden channels of the feed-forward branch.
        norm_style: ``'pre'`` or ``'post'``.
        norm_cfg: Normalisation; ``None`` for a LayerNorm with the eps of the style.
        **kwargs: Passed on to mmpretrain's ``TransformerEncoderLayer``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        norm_style: str = 'pre',
        norm_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        check_norm_style(norm_style)
        super().__init__(
            embed_dims,
            num_heads,
            feedforward_channels,
            norm_cfg=norm_cfg or dict(type='LN', eps=NORM_EPS[norm_style]),
            **kwargs,
        )
        self.norm_style = norm_style

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens of shape (B, N, D) to tokens of the same shape."""
        if self.norm_style == 'pre':
            return super().forward(x)
        x = self.ln1(x + self.attn(x))
        return self.ln2(self.ffn(x, identity=x))


def check_norm_style(norm_style: str) -> None:
    """Raises a ConfigError unless ``norm_style`` is ``'pre'`` or ``'post'``."""
    if norm_style not in NORM_EPS:
        raise ConfigError(f"norm_style must be 'pre' or 'post', got {norm_style!r}")


def init_linear_as_mae(module: nn.Module) -> None:
    """Initialises as MAE does: linear layers Xavier-uniform with zero bias, LayerNorm 1 and 0.

    Args:
        module: Everything below it is initialised, in the order of ``module.modules()``.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
