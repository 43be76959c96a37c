# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A backbone with a branch for each modality, and with fused maps for any head.

The published fine-tunings of MaRS (AAAI 2026, github.com/WanderRainy/MaRS) have a SwinV2 encoder
for the optical and one for the SAR channels, and add their maps. Written anew, for any encoders,
any number of modalities, and modalities that are missing in part or altogether.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleDict, ModuleList
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.modalities import (
    ModalityInput,
    channel_columns,
    check_dropout,
    check_modalities,
    drop_modality,
    split_modalities,
)
from mmrsfm.registry import MODELS

_OF_MODALITY = ('channels', 'backbone', 'out_channels')


@MODELS.register_module()
class DualModalityBackbone(BaseModule):
    """One encoder a modality, fused level by level; one modality, or more than two, work as well.

    Example, with what is common to the branches stated once::

        backbone=dict(
            type='mmrsfm.DualModalityBackbone',
            backbone=dict(type='mmrsfm.SwinV2', arch='base', img_size=512),
            modalities=dict(
                rgb=dict(channels=3, backbone=dict(init_cfg=dict(type='mmrsfm.Pretrained', ...))),
                sar=dict(channels=1, backbone=dict(init_cfg=dict(type='mmrsfm.Pretrained', ...)))),
            fusion='add')

    **What is missing** is NaN in the input (``invalid='nan'`` of our data preprocessors leaves it
    there). It becomes 0, the mean, before a branch sees it, and :class:`mmrsfm.ModalityFusion`
    leaves out, cell by cell, the maps of what has no data. A branch computes only those images
    that have data of its modality; without any it is skipped. (While training, its parameters
    then get gradients of 0, and with SyncBatchNorm it sees one image of zeros for nothing, so that
    distributed training keeps in step.) An image without any data goes through all branches. With
    nothing missing, the numbers are those of a plain sum (or concatenation, ...) of the branches.

    For a test on fewer modalities than were trained, ``input_modalities`` names those whose
    channels the input has; the other branches stay in the model, frozen and unused.

    Changes between two dates with different sensors, the pseudo-siamese form, is this backbone with
    ``fusion='concat'`` or ``'diff'`` in an ordinary segmentor, the dates as modalities. It can also
    be called with one tensor a modality, as Open-CD's ``DIEncoderDecoder`` does.

    Args:
        modalities: Name -> ``dict(channels=..., backbone=..., out_channels=...)``, in the order of
            the channels of the input. ``backbone``: what to set in, or beside, the common one; any
            registered backbone that returns maps (B, C, h, w). A backbone with a multiple
            ``in_channels`` of ``channels`` gets the channels repeated (a SAR band in an RGB
            encoder). ``out_channels``: channels of its maps, of backbones that don't state them
            (they are found out by trying, otherwise).
        backbone: Config that all branches have in common.
        fusion: ``'add'``, ``'mean'``, ``'concat'``, ``'diff'``, ``'abs_diff'``: the mode of
            :class:`mmrsfm.ModalityFusion`; ``'mma'``: attention across the modalities, then the
            sum, at every level (67 million parameters for base, 50 of them at the last one); a dict
            of arguments of that class; or a list with one of these a level, e.g. ``['add', 'add',
            'add', 'mma']``: the last is the level at which MaRS pretrains its attention, whose
            weights ``dict(attention=dict(init_cfg=dict(type='mmrsfm.Pretrained', part='neck',
            checkpoint=...)))`` takes from a checkpoint of the pretraining.
        input_modalities: Names of the modalities in the input; ``None``: all.
        modality_dropout: Probability, while training, that an image loses one of its modalities,
            each as likely; or name -> probability of losing that one, of a sum up to 1. The last
            modality of an image is never lost. Drawn from torch's generator;
            :class:`mmrsfm.DropModality` in a pipeline does the same with a draw that depends on
            the sample alone.
        frozen_stages: As of the branches, for those whose config does not state it.
        with_cp: As of the branches, for those whose config does not state it.
        init_cfg: MMEngine's initialisation config, of the whole. Each branch has its own.

    Attributes:
        out_channels: Channels of the fused maps.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        modalities: Mapping[str, Any],
        backbone: Mapping[str, Any] | None = None,
        fusion: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = 'add',
        input_modalities: Sequence[str] | None = None,
        modality_dropout: float | Mapping[str, float] = 0.0,
        frozen_stages: int | None = None,
        with_cp: bool | Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        specs = _check_specs(modalities)
        self.modalities = check_modalities({n: spec['channels'] for n, spec in specs.items()})
        self.input_modalities = self._check_names(input_modalities)
        each = isinstance(modality_dropout, Mapping)
        droppable = self.modalities if each else self._of_input()
        self._dropout = check_dropout(modality_dropout, droppable)
        common = dict(backbone or {})
        for key, value in (('frozen_stages', frozen_stages), ('with_cp', with_cp)):
            if value is not None:
                common.setdefault(key, value)
        self.branches = ModuleDict()
        self._repeats: dict[str, int] = {}
        widths: dict[str, list[int]] = {}
        for name, spec in specs.items():
            config = {**common, **(spec.get('backbone') or {})}
            self._repeats[name] = _settle_channels(name, config, self.modalities[name])
            branch = MODELS.build(config)
            self.branches[name] = branch
            count = self.modalities[name] * self._repeats[name]
            widths[name] = _out_channels(name, branch, spec.get('out_channels'), count)
        levels = {name: len(found) for name, found in widths.items()}
        if len(set(levels.values())) > 1:
            raise ConfigError(
                f'the branches return different numbers of maps {levels}: set out_indices'
            )
        self.fusions = ModuleList()
        for level, config in enumerate(_fusion_configs(fusion, levels[next(iter(levels))])):
            in_channels = {name: found[level] for name, found in widths.items()}
            self.fusions.append(MODELS.build({**config, 'in_channels': in_channels}))
        self.out_channels = [one.out_channels for one in self.fusions]
        columns = channel_columns({name: self.modalities[name] for name in self.input_modalities})
        self.input_columns = {f'branches.{name}': columns.get(name) for name in self.modalities}
        for name in self.modalities:
            if name not in self.input_modalities:
                for parameter in self._parameters_of(name):
                    parameter.requires_grad_(False)

    def _check_names(self, names: Sequence[str] | None) -> tuple[str, ...]:
        if names is None:
            return tuple(self.modalities)
        wrong = [name for name in names if name not in self.modalities]
        if isinstance(names, str) or not len(names) or wrong or len(set(names)) < len(names):
            raise ConfigError(
                f'input_modalities {names!r} must be a list of some of {list(self.modalities)}, '
                'each once'
            )
        return tuple(name for name in self.modalities if name in names)

    def _of_input(self) -> dict[str, int]:
        return {name: self.modalities[name] for name in self.input_modalities}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Encodes images.

        Args:
            *inputs: One tensor (B, C, H, W) with the channels of the ``input_modalities`` behind
                each other, NaN where there are no data; or one tensor for each of them.

        Returns:
            For each level a map (B, out_channels, h, w).

        Raises:
            ConfigError: If the channels are not those of the modalities.
        """
        images = inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1)
        parts = split_modalities(images, self._of_input())
        if self.training and self._dropout and len(parts) > 1:
            parts = drop_modality(parts, self._dropout, torch.rand(len(images)))
        wanted = _wanted(parts)
        encoded = {
            name: self._encode(name, part.image, wanted[name])
            for name, part in parts.items()
            if not _is_empty(wanted[name])
        }
        encoded = _align(encoded)
        outputs = [
            fusion({name: maps[level] for name, maps in encoded.items()}, parts)
            for level, fusion in enumerate(self.fusions)
        ]
        if self.training and torch.is_grad_enabled():
            for name in parts:
                if name not in encoded:
                    # To every map: a head may use any of them alone.
                    nothing = self._nothing_of(name, parts[name].image)
                    outputs = [output + nothing for output in outputs]
        # RoIAlign of mmcv takes every memory for that of NCHW, without a word.
        return tuple(x.contiguous() for x in outputs)

    def _encode(self, name: str, image: Tensor, wanted: Tensor | None) -> tuple[Tensor, ...]:
        """Maps of one modality; 0 for images that are not wanted."""
        if wanted is not None and not wanted.all():
            index = wanted.nonzero()[:, 0].to(image.device)
            maps = self._run(name, image[index])
            return tuple(
                x.new_zeros(len(image), *x.shape[1:]).index_copy(0, index, x) for x in maps
            )
        return self._run(name, image)

    def _run(self, name: str, image: Tensor) -> tuple[Tensor, ...]:
        repeats = self._repeats[name]
        maps = self.branches[name](image if repeats == 1 else image.repeat(1, repeats, 1, 1))
        maps = tuple(maps) if isinstance(maps, (list, tuple)) else (maps,)
        if len(maps) != len(self.fusions) or any(x.ndim != 4 for x in maps):
            raise ConfigError(
                f'the branch of {name!r} returned shapes {[tuple(x.shape) for x in maps]}, wanted '
                f'are {len(self.fusions)} maps (B, C, h, w): set its out_indices and out_type'
            )
        return maps

    def _nothing_of(self, name: str, image: Tensor) -> Tensor:
        """Zero, with a gradient of zero for all parameters that belong to a modality."""
        branch = self.branches[name]
        zero = image.new_zeros(())
        for parameter in self._parameters_of(name):
            if parameter.requires_grad:
                zero = zero + 0 * parameter.sum()
        synced = (isinstance(m, nn.SyncBatchNorm) and m.training for m in branch.modules())
        if any(synced):
            zero = zero + 0 * sum(x.sum() for x in self._run(name, image[:1]))
        return zero

    def _parameters_of(self, name: str) -> list[nn.Parameter]:
        found = list(self.branches[name].parameters())
        for fusion in self.fusions:
            projections: Any = getattr(fusion, 'projections', {})
            if name in projections:
                found += list(projections[name].parameters())
        return found

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter.
            prefix: What stands before the names of this backbone.

        Returns:
            The depth, from 0, and the number of depths, that of the deepest branch. A branch says
            how deep its parameters lie; a shallower one ends where the deepest ends. Fusion and
            everything after it is last.

        Raises:
            ConfigError: If a branch has no such method.
        """
        totals = {}
        for name, branch in self.branches.items():
            if not hasattr(branch, 'get_layer_depth'):
                raise ConfigError(f'the branch of {name!r} has no get_layer_depth')
            totals[name] = branch.get_layer_depth('', 'none.')[1]
        total = max(totals.values())
        for name, branch in self.branches.items():
            inner = f'{prefix}branches.{name}.'
            if param_name.startswith(inner):
                depth, own = branch.get_layer_depth(param_name, inner)
                return depth + total - own, total
        return total - 1, total


def _check_specs(modalities: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    if not isinstance(modalities, Mapping) or not modalities:
        raise ConfigError(f'modalities must name at least one modality, got {modalities!r}')
    specs = {}
    for name, spec in modalities.items():
        spec = {'channels': spec} if isinstance(spec, int) else dict(spec)
        unknown = set(spec) - set(_OF_MODALITY)
        if unknown or 'channels' not in spec:
            raise ConfigError(
                f'modality {name!r} needs channels, and may have backbone and out_channels; got '
                f'{sorted(spec)}'
            )
        specs[name] = spec
    return specs


def _settle_channels(name: str, config: dict[str, Any], channels: int) -> int:
    """Sets ``in_channels`` of a branch; returns how often the channels are repeated for it."""
    if 'type' not in config:
        raise ConfigError(f'modality {name!r} has no backbone: set backbone=dict(type=...)')
    stated = config.get('in_channels')
    if stated is not None:
        if stated % channels:
            raise ConfigError(
                f'modality {name!r} has {channels} channel(s), its backbone in_channels={stated}, '
                'which is no multiple of that'
            )
        return stated // channels
    if _takes_channels(config['type']):
        config['in_channels'] = channels
    elif channels != 3:
        raise ConfigError(
            f'modality {name!r}: {config["type"]} has no in_channels, and the modality '
            f'{channels} channel(s)'
        )
    return 1


def _takes_channels(kind: Any) -> bool:
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    for base in getattr(kind, '__mro__', ()):
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        if 'in_channels' in parameters:
            return True
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def _out_channels(
    name: str, branch: nn.Module, stated: Sequence[int] | None, channels: int
) -> list[int]:
    """Channels of the maps of a branch: as said by the config, by itself, or found out."""
    known = stated if stated is not None else getattr(branch, 'out_channels', None)
    if isinstance(known, Sequence):
        return [int(width) for width in known]
    training = branch.training
    branch.eval()
    failure: Exception | None = None
    for side in (64, 224):  # some take only the size that they were made for
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                maps = branch(torch.zeros(1, channels, side, side))
        except Exception as error:  # whatever a foreign backbone raises
            failure = error
            continue
        branch.train(training)
        return [x.shape[1] for x in (maps if isinstance(maps, (list, tuple)) else (maps,))]
    raise ConfigError(
        f'modality {name!r}: the channels of the maps of {type(branch).__name__} could not be '
        f'found out ({type(failure).__name__}: {failure}): give out_channels=[...] of the modality'
    ) from failure


def _fusion_configs(fusion: Any, levels: int) -> list[dict[str, Any]]:
    each = [fusion] * levels if isinstance(fusion, (str, Mapping)) else list(fusion)
    if len(each) != levels:
        raise ConfigError(f'fusion has {len(each)} entries, the branches return {levels} maps')
    configs = []
    for one in each:
        if isinstance(one, str):
            one = dict(mode='add', attention={}) if one == 'mma' else dict(mode=one)
        configs.append({'type': 'mmrsfm.ModalityFusion', **one})
    return configs


def _wanted(parts: Mapping[str, ModalityInput]) -> dict[str, Tensor | None]:
    """Which images each branch must see, (B,) bool on the CPU; ``None``: all."""
    # A graph computes every branch for every image: fusion leaves out what has no data.
    if torch.compiler.is_exporting() or all(part.valid is None for part in parts.values()):
        return dict.fromkeys(parts)
    present = torch.stack([part.present for part in parts.values()]).cpu()
    return dict(zip(parts, present | ~present.any(dim=0), strict=True))


def _is_empty(wanted: Tensor | None) -> bool:
    return wanted is not None and not wanted.any()


def _align(encoded: dict[str, tuple[Tensor, ...]]) -> dict[str, tuple[Tensor, ...]]:
    """Takes all maps to the sizes of the first branch: some round odd sizes up, others down."""
    sizes = [x.shape[2:] for x in next(iter(encoded.values()))]
    return {
        name: tuple(
            x
            if x.shape[2:] == size
            else F.interpolate(x, size=size, mode='bilinear', align_corners=False)
            for x, size in zip(maps, sizes, strict=True)
        )
        for name, maps in encoded.items()
    }
