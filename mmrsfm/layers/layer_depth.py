# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How deep a parameter of a backbone lies, by its name: what layer-wise learning rates need."""

from __future__ import annotations

from collections.abc import Sequence


def rvsa_layer_depth(name: str, num_layers: int) -> int:
    """Depth of a parameter of a plain vision transformer in timm's names.

    Args:
        name: Name of the parameter within the backbone, e.g. ``'blocks.3.norm1.weight'``.
        num_layers: Number of layers.

    Returns:
        0 for tokens, position table and patch embedding, ``i + 1`` for layer i, ``num_layers + 1``
        for everything else.
    """
    first, _, rest = name.partition('.')
    if first in ('pos_embed', 'cls_token', 'mask_token', 'patch_embed'):
        return 0
    if first == 'blocks':
        return int(rest.partition('.')[0]) + 1
    return num_layers + 1


def intern_image_layer_depth(name: str, depths: Sequence[int]) -> int:
    """Depth of a parameter of InternImage.

    Args:
        name: Name of the parameter within the backbone, e.g. ``'levels.2.blocks.7.gamma1'``.
        depths: Number of layers of each level.

    Returns:
        0 for the stem. The layers count from 1 through all levels. What a level has beside its
        layers (downsampling, norms) lies as deep as the first layer of the next level; in the last
        level as deep as the first layer of that. ``sum(depths) + 1`` for everything else.
    """
    parts = name.split('.')
    if parts[0] == 'patch_embed':
        return 0
    if parts[0] != 'levels':
        return sum(depths) + 1
    level = int(parts[1])
    if parts[2] == 'blocks':
        return 1 + sum(depths[:level]) + int(parts[3])
    return 1 + sum(depths[: min(level + 1, len(depths) - 1)])


def swin_layer_depth(name: str, depths: Sequence[int]) -> int:
    """Depth of a parameter of Swin Transformer V2 in mmpretrain's names.

    Args:
        name: Name of the parameter within the backbone, e.g. ``'stages.2.blocks.7.norm1.weight'``.
        depths: Number of blocks of each stage.

    Returns:
        0 for patch embedding and mask token. The blocks count from 1 through all stages; the
        patch merging at the start of a stage lies as deep as its first block (as in timm).
        ``sum(depths) + 1`` for everything else.
    """
    parts = name.split('.')
    if parts[0] in ('patch_embed', 'mask_token'):
        return 0
    if parts[0] != 'stages':
        return sum(depths) + 1
    block = int(parts[3]) if parts[2] == 'blocks' else 0
    return 1 + sum(depths[: int(parts[1])]) + block


def mixmim_layer_depth(name: str, depths: Sequence[int]) -> int:
    """Depth of a parameter of MixMIM in mmpretrain's names.

    Args:
        name: Name of the parameter within the backbone, e.g. ``'layers.2.blocks.7.ln1.weight'``.
        depths: Number of blocks of each stage.

    Returns:
        0 for patch embedding and position table. The blocks count from 1 through all stages; the
        patch merging at the end of a stage lies as deep as the first block of the next one.
        ``sum(depths) + 1`` for everything else (norms).
    """
    parts = name.split('.')
    if parts[0] in ('patch_embed', 'absolute_pos_embed'):
        return 0
    if parts[0] != 'layers':
        return sum(depths) + 1
    stage = int(parts[1])
    if parts[2] == 'blocks':
        return 1 + sum(depths[:stage]) + int(parts[3])
    return 1 + sum(depths[: stage + 1])


def conv_next_layer_depth(name: str, depths: Sequence[int], faithful: bool = False) -> int:
    """Depth of a parameter of ConvNeXt in mmpretrain's names, one depth for each block.

    Args:
        name: Name of the parameter within the backbone, e.g. ``'stages.2.7.norm.weight'``.
        depths: Number of blocks of each stage.
        faithful: As the published fine-tunings of MMEarth have it: what is between two stages is
            as deep as the first block *before* it, in the stage that it ends; the stem is as
            ``sum(depths) + 1``, so that it has the full learning rate.

    Returns:
        0 for the stem. The blocks count from 1 through all stages; what is between two stages lies
        as deep as the first block behind it. ``sum(depths) + 1`` for everything else (norms).
    """
    parts = name.split('.')
    last = sum(depths) + 1
    if parts[0] == 'stages':
        return 1 + sum(depths[: int(parts[1])]) + int(parts[2])
    if parts[0] == 'downsample_layers' and parts[1] != '0':
        return 1 + sum(depths[: int(parts[1]) - int(faithful)])
    if parts[0] in ('downsample_layers', 'initial_conv') and not faithful:
        return 0
    return last
