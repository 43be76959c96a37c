# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A whole checkpoint in another layout, with what must travel beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mmrsfm.checkpoints.branches import branches_of, contract_of_branches, take_part
from mmrsfm.checkpoints.layout import Layout, detect_layout, get_layout
from mmrsfm.checkpoints.report import compact
from mmrsfm.checkpoints.traits import CONTRACT_KEY, SOURCE_KEY, TRAITS_KEY
from mmrsfm.checkpoints.unwrapping import unwrap
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import CheckpointError

# Short names of the command line.
ALIASES = {'timm': 'timm_vit', 'mmpretrain': 'mmpretrain_vit'}
_TIMM_SWIN = ('timm', 'timm_swin_v2')
_SWIN_MARK = 'backbone.stages.0.blocks.0.attn.w_msa.logit_scale'
_TASK_MODELS = ('mmrsfm', 'mmpretrain_vit')


@dataclass
class Export:
    """A converted checkpoint.

    Attributes:
        content: What to write to a file.
        source: Layout it came from.
        target: Layout it has now.
        converted: Number of entries.
        left_out: Names (of the source, or ours) that the layouts have no place for.
        steps: What was unwrapped.
        notes: Anything else that the user should know.
    """

    content: dict[str, Any]
    source: str
    target: str
    converted: int
    left_out: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines for the terminal."""
        opened = f' ({" ".join(self.steps)})' if self.steps else ''
        lines = [f'{self.source}{opened} -> {self.target}: {self.converted} entries']
        if self.left_out:
            lines.append(f'  left out, {len(self.left_out)}: {compact(self.left_out, 60)}')
        lines += [f'  note: {note}' for note in self.notes]
        return '\n'.join(lines)


def export_checkpoint(
    checkpoint: Mapping[str, Any],
    target: str = 'mmrsfm',
    source: str = 'auto',
    contract: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
    weights: str = 'auto',
    strict: bool = False,
    part: str | None = None,
) -> Export:
    """Converts a checkpoint.

    Args:
        checkpoint: Contents of the file, as read.
        target: Name of a layout, or ``'timm'``, ``'mmpretrain'``.
        source: Name of the layout it has, or ``'auto'``.
        contract: Imagery contract to write; by default the checkpoint's own.
        origin: What to note about where it came from (file, digest).
        weights: Entry that holds the weights.
        strict: Whether an entry without a place is an error.
        part: What to convert of a model with several encoders, under our names, e.g.
            ``'backbone.branches.sar'`` or ``'teacher'``; by default all of it.

    Returns:
        The result. Files in mmrsfm's and mmpretrain's layout hold ``state_dict`` and ``meta``,
        others ``model`` and ``meta``.

    Raises:
        CheckpointError: If the target stands for other blocks (pre-norm, post-norm), if it can
            only be read, or if something is left out with ``strict``.
    """
    found = unwrap(checkpoint, weights)
    old: Layout = detect_layout(found.state, found.meta) if source == 'auto' else get_layout(source)
    ours, unknown = old.to_mmrsfm(found.state)
    if part is not None:
        ours, aside = take_part(ours, part)
        unknown += aside
    if target == _TIMM_SWIN[0] and _SWIN_MARK in ours:
        target = _TIMM_SWIN[1]
    new = get_layout(ALIASES.get(target, target))
    if new.name != old.name:
        idle = [name for name in ours if any(fnmatchcase(name, one) for one in old.idle)]
        ours = {name: value for name, value in ours.items() if name not in idle}
        unknown += idle
    traits = dict(found.meta.get(TRAITS_KEY) or {})
    style = traits.get('norm_style') or old.norm_style
    if style is not None and new.norm_style is not None and style != new.norm_style:
        raise CheckpointError(
            f'these are the weights of {style}-norm blocks; {new.name!r} stands for '
            f'{new.norm_style}-norm ones, where they would be silently wrong'
        )
    result, homeless = new.from_mmrsfm(ours)
    left = [*unknown, *homeless]
    if strict and left:
        raise CheckpointError(f'{len(left)} entries have no place in {new.name}: {compact(left)}')
    if not result:
        branches = branches_of(ours)
        which = f"; choose an encoder: part='backbone.branches.{branches[0]}'" if branches else ''
        raise CheckpointError(
            f'nothing of this {old.name} checkpoint has a place in {new.name}{which}'
        )
    meta: dict[str, Any] = {}
    stated = contract if contract is not None else found.meta.get(CONTRACT_KEY)
    if stated:
        imagery = ImageryContract.from_dict(stated)
        if contract is None and part is not None:
            imagery = contract_of_branches(imagery, found.meta, [part.rpartition('.')[2]])
        meta[CONTRACT_KEY] = imagery.to_dict()
    if part is not None:
        traits.pop('modalities', None)
    if style is not None:
        traits['norm_style'] = style
    if new.name == 'mmrsfm' or traits.get('norm_style') == 'post' or 'modalities' in traits:
        meta[TRAITS_KEY] = traits
    meta[SOURCE_KEY] = {
        'layout': old.name,
        'origin': old.origin,
        'licence': old.licence,
        **(origin or {}),
    }
    if found.meta.get(SOURCE_KEY):
        meta[SOURCE_KEY]['before'] = found.meta[SOURCE_KEY]
    key = 'state_dict' if new.name in _TASK_MODELS else 'model'
    # Contiguous and unshared: views would drag their whole storage into the file.
    tensors = {name: value.detach().clone().contiguous() for name, value in result.items()}
    content = {key: tensors, 'meta': meta}
    return Export(content, old.name, new.name, len(result), left, found.steps, found.notes)
