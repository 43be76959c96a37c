# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Four scales out of the single scale of a plain vision transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from mmrsfm.errors import ConfigError


class ScalePyramid(BaseModule):
    """Feature maps at 1/4, 1/2, 1 and 2 times the patch size (strides 4, 8, 16, 32 for 16).

    Two transposed convolutions with a normalisation and a GELU between them; one transposed
    convolution; the map as it is; a maximum over 2x2. The idea is that of ViTDet
    (arXiv 2203.16527) and of the dense heads of BEiT (arXiv 2106.08254).

    Args:
        embed_dims: Number of channels of every map.
        norm_cfg: Normalisation of the finest scale; the default, LN2d, does not depend on the
            batch.
    """

    FACTORS = (4.0, 2.0, 1.0, 0.5)

    def __init__(self, embed_dims: int, norm_cfg: dict | None = None) -> None:
        super().__init__()
        norm = build_norm_layer(norm_cfg or dict(type='LN2d', eps=1e-6), embed_dims)
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(embed_dims, embed_dims, 2, 2),
                    norm,
                    nn.GELU(),
                    nn.ConvTranspose2d(embed_dims, embed_dims, 2, 2),
                ),
                nn.ConvTranspose2d(embed_dims, embed_dims, 2, 2),
                nn.Identity(),
                # An odd grid keeps its last row and column.
                nn.MaxPool2d(2, 2, ceil_mode=True),
            ]
        )

    def forward(
        self, maps: Sequence[Tensor], size: tuple[int, int], patch_size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Resamples one map, or four.

        Args:
            maps: One map for all scales, or one for each, of shape (B, D, rows, columns).
            size: Height and width of the image in pixels, without padding.
            patch_size: Height and width of a patch in pixels.

        Returns:
            Four maps; the one of stride s has ``ceil(height / s)`` rows: what lies on the padding
            only is cut off.

        Raises:
            ConfigError: If there are neither one nor four maps.
        """
        if len(maps) not in (1, 4):
            raise ConfigError(f'a pyramid is made from one or from four layers, got {len(maps)}')
        sources = list(maps) * (4 // len(maps))
        result = []
        for source, scale, factor in zip(sources, self.scales, self.FACTORS, strict=True):
            rows = math.ceil(size[0] * factor / patch_size[0])
            columns = math.ceil(size[1] * factor / patch_size[1])
            result.append(scale(source)[:, :, :rows, :columns])
        return tuple(result)
