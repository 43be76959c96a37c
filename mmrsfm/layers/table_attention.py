# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Window attention with a learned bias for each distance, for windows of any size.

Liu et al., "Swin Transformer", ICCV 2021, arXiv 2103.14030, equation 4.
"""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.utils import WindowMSA
from torch import Tensor, nn

from mmrsfm.layers.biased_attention import biased_attention
from mmrsfm.layers.position import PositionTableResizer
from mmrsfm.layers.position_bias import Pair, pair_index, spread


class TableWindowAttention(nn.Module):
    """The linear layers of mmpretrain's ``WindowMSA``, and its table for a window of any form.

    For another window than its own the table is stretched, bicubic without corner alignment: what
    the published loader of MixMIM does to a checkpoint.

    Args:
        built: The module whose linear layers are taken over.
        window: Height and width of the window that the table is made for.
    """

    def __init__(self, built: WindowMSA, window: Pair) -> None:
        super().__init__()
        self.num_heads: int = built.num_heads
        self.scale: float = built.scale
        self.window = window
        self.qkv = built.qkv
        self.proj = built.proj
        rows = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, self.num_heads))
        # Only so that files hold what those of the published code and of mmpretrain hold.
        index = pair_index(window, self.relative_position_bias_table.device)
        count = window[0] * window[1]
        self.register_buffer('relative_position_index', index.view(count, count).clone())
        self.resizer = PositionTableResizer()

    def bias(self, window: Pair) -> Tensor:
        """The bias of every pair of tokens of a window.

        Args:
            window: Height h and width w.

        Returns:
            Shape (heads, N, N), N = h * w.
        """
        source = (2 * self.window[0] - 1, 2 * self.window[1] - 1)
        target = (2 * window[0] - 1, 2 * window[1] - 1)
        table = self.relative_position_bias_table.unsqueeze(0)
        return spread(self.resizer(table, source, target, 0)[0], window)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Mixes the tokens of each window.

        Args:
            x: Shape (B, n * N, C), window by window.
            bias: Shape (heads, N, N) or (k, heads, N, N), see
                :func:`mmrsfm.layers.biased_attention.biased_attention`.

        Returns:
            Shape (B, n * N, C).
        """
        tokens = bias.shape[-1]
        qkv = self.qkv(x).view(-1, tokens, 3, self.num_heads, x.shape[-1] // self.num_heads)
        out = biased_attention(qkv.permute(2, 0, 3, 1, 4), bias, self.scale)
        out = self.proj(out.transpose(1, 2).reshape(x.shape))
        return out  # type: ignore[no-any-return]

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # It follows from the window, and older files lack it.
        state_dict[prefix + 'relative_position_index'] = self.relative_position_index
        self.resizer.clear()
        super()._load_from_state_dict(state_dict, prefix, *args)
