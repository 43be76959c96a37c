# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A layer of InternImage: a deformable convolution and an MLP, each beside an identity.

InternImage: Wang et al., CVPR 2023, arXiv 2211.05778.
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.channel_norm import channel_norm
from mmrsfm.layers.dcn_v3 import DCNv3, activation


class MLP(nn.Module):
    """Linear, activation, dropout, linear, dropout; on the last dimension."""

    def __init__(self, channels: int, hidden: int, act_type: str, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = activation(act_type)
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to the same shape."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class InternImageLayer(nn.Module):
    """``x = x + f(x)`` for the deformable convolution, then for the MLP.

    With a norm and a scale ``gamma`` for each, ``f(x)`` is ``gamma * norm(op(x))`` with
    ``post_norm``, ``gamma * op(norm(x))`` without, ``res_post_norm(op(norm(x)))`` with
    ``res_post_norm``.

    Args:
        channels: Number of channels.
        groups: Groups of the deformable convolution.
        mlp_ratio: Hidden channels of the MLP by ``channels``.
        drop_rate: Dropout in the MLP.
        drop_path_rate: Stochastic depth.
        layer_scale: Initial ``gamma``; 0: none.
        post_norm: Norm after the operators.
        res_post_norm: Norms before and after the operators.
        norm_type: Norm inside the deformable convolution; those of the layer are LayerNorms.
        act_type: Activation of both.
        **dcn: More arguments of :class:`mmrsfm.layers.dcn_v3.DCNv3`.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float = 0.0,
        post_norm: bool = False,
        res_post_norm: bool = False,
        norm_type: str = 'LN',
        act_type: str = 'GELU',
        **dcn: Any,
    ) -> None:
        super().__init__()
        if res_post_norm and (post_norm or layer_scale):
            raise ConfigError(
                'res_post_norm excludes post_norm and layer_scale: the published code would '
                'create its norms and never use them'
            )
        self.post_norm = post_norm
        self.res_post_norm = res_post_norm
        self.norm1 = channel_norm(channels)
        self.dcn = DCNv3(channels, groups=groups, norm_type=norm_type, act_type=act_type, **dcn)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.norm2 = channel_norm(channels)
        self.mlp = MLP(channels, int(channels * mlp_ratio), act_type, drop_rate)
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None
        if layer_scale:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        if res_post_norm:
            self.res_post_norm1 = channel_norm(channels)
            self.res_post_norm2 = channel_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, H, W, C) to the same shape."""
        after = (self.res_post_norm1, self.res_post_norm2) if self.res_post_norm else (None, None)
        x = x + self._branch(x, self.dcn, self.norm1, self.gamma1, after[0])
        return x + self._branch(x, self.mlp, self.norm2, self.gamma2, after[1])

    def _branch(
        self,
        x: Tensor,
        operator: nn.Module,
        norm: nn.Module,
        gamma: nn.Parameter | None,
        after: nn.Module | None,
    ) -> Tensor:
        x = norm(operator(x)) if self.post_norm else operator(norm(x))
        if after is not None:
            x = after(x)
        if gamma is not None:
            x = gamma * x
        return self.drop_path(x)
