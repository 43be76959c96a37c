# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Giving the first convolution of a pretrained backbone other input bands.

All methods but ``'random'`` keep the answer to a grey image: one whose normalised value is the same
in every band. That answer is the sum of the columns, so that the scale of what the next layer sees
does not depend on the number of bands (for repeated RGB columns this is what timm does).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrsfm.checkpoints.adaptation import CHOICES
from mmrsfm.checkpoints.layout import Layout, StateDict
from mmrsfm.contract import ImageryContract, band_keys
from mmrsfm.errors import ContractError


def find_stem(module: nn.Module) -> str | None:
    """Name of the weight of the convolution that sees the image; ``None`` where there is none.

    That is the attribute ``stem_weight`` of the module, or its first ordinary 2-D convolution.
    """
    stated = getattr(module, 'stem_weight', None)
    if isinstance(stated, str):
        return stated
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d) and child.groups == 1:
            return f'{name}.weight' if name else 'weight'
    return None


def contract_of_layout(
    layout: Layout, state: StateDict, module: nn.Module, whole: bool
) -> ImageryContract | None:
    """The bands of weights whose file does not name them, but that are known by their layout.

    Args:
        layout: The layout.
        state: The checkpoint's entries for the module, under our names.
        module: A backbone, or a model with one.
        whole: Whether it is such a model.
    """
    stem = find_stem(module.backbone if whole else module)  # type: ignore[arg-type]
    weight = state.get(f'backbone.{stem}' if whole else str(stem))
    names = layout.bands_of(weight) if weight is not None and weight.ndim == 4 else None
    return None if names is None else ImageryContract(band_names=names)


def adapt_stem(
    weight: Tensor,
    channels: int,
    method: str,
    source_bands: Sequence[str] | None = None,
    target_bands: Sequence[str] | None = None,
) -> tuple[Tensor, str]:
    """Makes the weight of a stem for other bands.

    * ``'by_name'``: a band that the checkpoint knows gets its own column. One that it does not know
      gets the mean of the columns of the known ones; then all are scaled by known / all, so that
      a grey image is answered as by the known bands alone. A mere choice or reordering of
      bands changes no column.
    * ``'mean'``: every band gets the mean of all columns, scaled by source / target count.
    * ``'repeat'``: the columns in order, again and again, scaled by source / target count.

    Args:
        weight: Shape (D, C, kh, kw).
        channels: Number of bands wanted.
        method: One of those above.
        source_bands: Names of the C bands; for ``'by_name'``.
        target_bands: Names of the bands wanted; for ``'by_name'``.

    Returns:
        The new weight, shape (D, channels, kh, kw), and a sentence that says what was done.

    Raises:
        ContractError: If names are missing or contradict the shapes.
    """
    count = weight.shape[1]
    if method == 'by_name':
        return _by_name(weight, channels, source_bands, target_bands)
    if method == 'mean':
        column = weight.float().mean(dim=1, keepdim=True) * (count / channels)
        return (
            column.to(weight.dtype).repeat(1, channels, 1, 1),
            f'mean of {count} bands for each of {channels}, times {count / channels:.4g}',
        )
    if method == 'repeat':
        order = torch.arange(channels) % count
        repeated = weight.float()[:, order] * (count / channels)
        return (
            repeated.to(weight.dtype),
            f'{count} bands repeated to {channels}, times {count / channels:.4g}',
        )
    raise ValueError(method)


def _by_name(
    weight: Tensor,
    channels: int,
    source_bands: Sequence[str] | None,
    target_bands: Sequence[str] | None,
) -> tuple[Tensor, str]:
    if source_bands is None:
        raise ContractError(
            "adapt='by_name': the checkpoint does not say which bands it was trained on. Name them "
            f'with adapt=dict(bands=..., source_bands=[...]), or choose otherwise: {CHOICES}'
        )
    if target_bands is None:
        raise ContractError(
            "adapt='by_name' needs the names of this run's bands: give "
            'contract=dict(band_names=[...]) beside adapt'
        )
    for names, size, whose in (
        (source_bands, weight.shape[1], 'the checkpoint'),
        (target_bands, channels, 'this model'),
    ):
        if len(names) != size:
            raise ContractError(
                f'{len(names)} band names, {list(names)}, for {whose}, whose stem has {size} inputs'
            )
    source_bands, target_bands = band_keys(source_bands), band_keys(target_bands)
    known = [name for name in target_bands if name in source_bands]
    if not known:
        raise ContractError(
            f"adapt='by_name': no band of {list(target_bands)} is among the checkpoint's "
            f'{list(source_bands)}. {CHOICES}'
        )
    columns = weight.float()
    index = [list(source_bands).index(name) for name in known]
    fallback = columns[:, index].mean(dim=1)
    new = torch.stack(
        [
            columns[:, list(source_bands).index(name)] if name in known else fallback
            for name in target_bands
        ],
        dim=1,
    )
    lacking = [name for name in target_bands if name not in known]
    unused = [name for name in source_bands if name not in known]
    text = f'columns of {", ".join(known)} by name'
    if unused:
        text += f'; not used: {", ".join(unused)}'
    if lacking:
        scale = len(known) / channels
        new = new * scale
        text += f'; mean of those for {", ".join(lacking)}, all times {scale:.4g}'
    return new.to(weight.dtype), text
