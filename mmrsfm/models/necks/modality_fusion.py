# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One feature map out of those of several modalities, some of which may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.modalities import ModalityInput
from mmrsfm.registry import MODELS

MODES = ('add', 'mean', 'concat', 'diff', 'abs_diff')


@MODELS.register_module()
class ModalityFusion(BaseModule):
    """Fuses the maps of one level, cell by cell, from those modalities that have data there.

    A cell of the map speaks of a modality if half of the pixels under it have data of it. Where no
    modality has that, all those stand in that are present in the image (or simply all, in an image
    without any data), so that one modality alone gives what its branch gives, also beside a swath.

    ========== ========================================== ==============================
    mode       both have data                             one has not
    ========== ========================================== ==============================
    add        the sum                                    the other one
    mean       the mean                                   the other one
    concat     the channels behind each other             0 in its channels
    diff       second minus first                         0
    abs_diff   absolute value of the difference           0
    ========== ========================================== ==============================

    ``'add'`` is how the published fine-tunings of MaRS fuse; with one modality it has the scale of
    a model with that branch alone. ``'mean'`` has the same scale in either case, which is gentler
    to a head that was not trained with missing modalities. The differences take two modalities.

    With ``attention`` the modalities first look at each other. Attention over all cells of a fine
    map is out of reach (2 x 128 x 128 tokens for 512 pixels at stride 4), so a map of more than
    ``max_tokens`` cells is averaged to that number of tokens, and what attention *changed* in them
    is added to the map, interpolated; a map within the budget is attended cell by cell.

    Args:
        in_channels: Channels of each modality's map, in the order of the modalities.
        mode: See above.
        channels: If given, 1x1 convolutions take each modality to this number first; needed where
            they differ, for all but ``'concat'``.
        attention: Config of a module such as :class:`mmrsfm.MetaModalityAttention` (the default
            type), without ``channels``: all modalities must have the same number. ``None``: none.
        max_tokens: Most tokens of one modality in attention.
        init_cfg: MMEngine's initialisation config.

    Attributes:
        out_channels: Channels of the fused map.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        mode: str = 'add',
        channels: int | None = None,
        attention: dict[str, Any] | None = None,
        max_tokens: int = 1024,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if mode not in MODES:
            raise ConfigError(f'fusion mode {mode!r} is not one of {MODES}')
        if mode in ('diff', 'abs_diff') and len(in_channels) != 2:
            raise ConfigError(f'fusion {mode!r} takes two modalities, got {list(in_channels)}')
        if max_tokens < 1:
            raise ConfigError(f'max_tokens must be at least 1, got {max_tokens}')
        widths = {name: channels or width for name, width in in_channels.items()}
        if len(set(widths.values())) > 1 and (mode != 'concat' or attention is not None):
            raise ConfigError(
                f'fusion {mode!r}{" with attention" if attention is not None else ""}: the '
                f'modalities have different channels {widths}. Give channels=... to take them to '
                "one number, or fuse by 'concat'"
            )
        self.mode = mode
        self.names = tuple(in_channels)
        self.widths = widths
        self.max_tokens = max_tokens
        self.out_channels = (
            sum(widths.values()) if mode == 'concat' else next(iter(widths.values()))
        )
        self.projections = nn.ModuleDict()
        if channels is not None:
            for name, width in in_channels.items():
                self.projections[name] = nn.Conv2d(width, channels, 1)
        self.attention = None
        if attention is not None:
            self.attention = MODELS.build(
                {'type': 'mmrsfm.MetaModalityAttention', 'channels': widths[self.names[0]]}
                | dict(attention)
            )

    def forward(self, maps: Mapping[str, Tensor], inputs: Mapping[str, ModalityInput]) -> Tensor:
        """Fuses one level.

        Args:
            maps: For each modality with data in the batch a map (B, C, h, w), h and w the same.
            inputs: What the maps were computed from, for all modalities.

        Returns:
            Shape (B, out_channels, h, w).
        """
        if self.projections:
            maps = {name: self.projections[name](x) for name, x in maps.items()}
        first = next(iter(maps.values()))
        grid = first.shape[2:]
        usable = usable_cells({name: inputs[name] for name in maps}, grid)
        if self.attention is not None:
            maps = self._attend(maps, inputs, usable)
        if self.mode in ('diff', 'abs_diff'):
            return self._subtract(maps, usable)
        shown = {name: _masked(x, usable[name]) for name, x in maps.items()}
        if self.mode == 'concat':
            batch, _, height, width = first.shape
            missing = {
                name: first.new_zeros(batch, channels, height, width)
                for name, channels in self.widths.items()
                if name not in shown
            }
            return torch.cat([{**shown, **missing}[name] for name in self.names], dim=1)
        fused = sum(shown.values(), start=torch.zeros((), dtype=first.dtype, device=first.device))
        if self.mode == 'mean' and len(shown) > 1:
            masks = [mask for mask in usable.values() if mask is not None]
            everywhere = len(shown) - len(masks)
            count: Any = everywhere
            if masks:
                count = (everywhere + torch.stack(masks).sum(dim=0)).clamp_(min=1).to(fused.dtype)
            fused = fused / count
        return fused

    def _subtract(self, maps: Mapping[str, Tensor], usable: Mapping[str, Tensor | None]) -> Tensor:
        if len(maps) < 2:
            return next(iter(maps.values())) * 0  # keeps the branch in the graph
        one, other = (maps[name] for name in self.names)
        difference = other - one
        if self.mode == 'abs_diff':
            difference = difference.abs()
        for mask in usable.values():
            difference = _masked(difference, mask)
        return difference

    def _attend(
        self,
        maps: Mapping[str, Tensor],
        inputs: Mapping[str, ModalityInput],
        usable: Mapping[str, Tensor | None],
    ) -> dict[str, Tensor]:
        assert self.attention is not None
        first = next(iter(maps.values()))
        fine = (int(first.shape[2]), int(first.shape[3]))
        grid = token_grid(fine, self.max_tokens)
        pools = grid != fine
        if pools:
            before = {name: F.adaptive_avg_pool2d(x, grid) for name, x in maps.items()}
            cells = usable_cells({name: inputs[name] for name in maps}, grid)
        else:
            before, cells = dict(maps), dict(usable)
        after = self.attention(list(before.values()), [cells[name] for name in before])
        if not pools:
            return dict(zip(before, after, strict=True))
        return {
            name: maps[name] + F.interpolate(y - x, size=fine, mode='bilinear', align_corners=False)
            for (name, x), y in zip(before.items(), after, strict=True)
        }


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.where(mask, 0.0)


def token_grid(size: tuple[int, int], max_tokens: int) -> tuple[int, int]:
    """The largest grid of about the aspect of ``size``, with at most ``max_tokens`` cells."""
    height, width = size
    if height * width <= max_tokens:
        return size
    shrink = math.sqrt(max_tokens / (height * width))
    rows = min(max(1, math.floor(height * shrink)), max_tokens)
    return rows, min(max(1, math.floor(width * shrink)), max_tokens // rows)


def usable_cells(
    inputs: Mapping[str, ModalityInput], grid: tuple[int, int] | torch.Size
) -> dict[str, Tensor | None]:
    """Which cells of a map may be used of each modality.

    Args:
        inputs: The modalities that have a map.
        grid: Rows and columns of the map.

    Returns:
        For each modality (B, 1, rows, columns), bool; ``None``: all. No cell is without any.
    """
    rows, columns = grid
    cells = {name: one.cells((rows, columns)) for name, one in inputs.items()}
    if any(mask is None for mask in cells.values()):
        # One modality has data everywhere: nobody needs to stand in.
        return {
            name: None if mask is None else mask.view(-1, 1, rows, columns)
            for name, mask in cells.items()
        }
    masks = torch.stack([mask for mask in cells.values() if mask is not None])
    present = torch.stack([one.present for one in inputs.values()])
    present = present | ~present.any(dim=0)
    masks = masks | (present[:, :, None] & ~masks.any(dim=0))
    found = masks.view(len(inputs), -1, 1, rows, columns)
    if len(inputs) == 1:
        return dict.fromkeys(inputs)
    return dict(zip(inputs, found, strict=True))
