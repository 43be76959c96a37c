# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A layer of a vision transformer with the normalisation before or after the branches."""

from __future__ import annotations

import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from mmpretrain.models.utils import MultiheadAttention, build_norm_layer
from torch import Tensor, nn

from mmrsfm.errors import ConfigError

NORM_EPS = {'pre': 1e-6, 'post': 1e-5}


class SelfAttention(MultiheadAttention):
    """mmpretrain's ``MultiheadAttention`` with a cheaper split of query, key and value.

    The same numbers and the same parameters. Taking ``qkv[0]``, ``qkv[1]``, ``qkv[2]`` makes
    autograd fill and add three tensors of the size of qkv in the backward pass; unbinding once
    makes it write one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens of shape (B, N, D) to tokens of the same shape."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, self.head_dims)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        dropout = self.attn_drop if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = self.proj(x.transpose(1, 2).reshape(batch, length, self.embed_dims))
        return self.out_drop(self.gamma1(self.proj_drop(x)))


class ViTLayer(BaseModule):
    """One layer of a vision transformer; parameter names are those of mmpretrain's.

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
        layer_scale_init_value: Initial layer scale of both branches; 0: none.
        drop_rate: Dropout after both branches and inside the feed-forward one.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth.
        qkv_bias: Whether query, key and value have a bias.
        act_cfg: Activation of the feed-forward branch.
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        norm_style: str = 'pre',
        norm_cfg: dict | None = None,
        layer_scale_init_value: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        act_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_norm_style(norm_style)
        if embed_dims % num_heads:
            raise ConfigError(f'{embed_dims} channels do not divide into {num_heads} heads')
        self.embed_dims = embed_dims
        self.norm_style = norm_style
        norm_cfg = norm_cfg or dict(type='LN', eps=NORM_EPS[norm_style])
        self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        self.attn = SelfAttention(
            embed_dims=embed_dims,
            num_heads=num_heads,
            attn_drop=attn_drop_rate,
            proj_drop=drop_rate,
            dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
            qkv_bias=qkv_bias,
            layer_scale_init_value=layer_scale_init_value,
        )
        self.ln2 = build_norm_layer(norm_cfg, embed_dims)
        self.ffn = FFN(
            embed_dims=embed_dims,
            feedforward_channels=feedforward_channels,
            ffn_drop=drop_rate,
            dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
            act_cfg=act_cfg or dict(type='GELU'),
            layer_scale_init_value=layer_scale_init_value,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens of shape (B, N, D) to tokens of the same shape."""
        if self.norm_style == 'pre':
            x = x + self.attn(self.ln1(x))
            return self.ffn(self.ln2(x), identity=x)
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
