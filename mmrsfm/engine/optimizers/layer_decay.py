# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Learning rates that fall from the head to the first layer: what all backbones share.

The idea is that of ELECTRA (Clark et al., arXiv 2003.10555) and BEiT (Bao et al., arXiv
2106.08254). mmpretrain's ``LearningRateDecayOptimWrapperConstructor`` has the same maths, but wants
a method of the whole model, which detectors and segmentors do not have, and makes a group of each
parameter; this one reads the names of the parameters, and makes one group of each depth and weight
decay, so that optimizers can work on many parameters at once.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmrsfm.errors import ConfigError

# What wrappers put before the names of a model, and what no name of a layer depends on.
_WRAPPERS = re.compile(r'^(?:module\.|_orig_mod\.)+')


class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Scales the learning rate of a parameter by ``layer_decay_rate ** (last depth - depth)``.

    The backbone is recognised by the names of its parameters, whatever the model calls it
    (``backbone.``, ``encoder.``, ``detector.backbone.`` ...); all other parameters have the last
    depth, and the full learning rate. Frozen parameters are left out. Parameters of one dimension,
    biases, and those whose names contain one of ``no_decay`` get no weight decay.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper; its optimizer must state ``lr``.
        paramwise_cfg: A dict with

            * ``layer_decay_rate``: the factor from one depth to the next, in (0, 1];
            * ``num_layers``, and for InternImage ``depths``: the size of the backbone, to be
              compared with the model; default: as the model is;
            * ``faithful``: whether to do what the published runs did, see the subclass [False];
            * ``custom_keys``: as in MMEngine; for parameters whose names contain the key,
              ``lr_mult`` and ``decay_mult`` multiply what the rules above give (``decay_mult``
              replaces "none" too). The longest key wins.

    Attributes:
        no_decay: Parts of names of parameters without weight decay.
        faithful_prefix: What the published constructor took for the name of the backbone.
        pattern: How names within the backbone start: those of the stem, and, with the group
            ``layer``, those of a layer.

    Raises:
        ConfigError: If ``paramwise_cfg`` is not understood, or does not fit the model.
    """

    no_decay: ClassVar[tuple[str, ...]]
    faithful_prefix: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        known = {'layer_decay_rate', 'num_layers', 'depths', 'faithful', 'custom_keys'}
        unknown = set(self.paramwise_cfg) - known
        if unknown:
            raise ConfigError(
                f'paramwise_cfg of {type(self).__name__}: unknown {sorted(unknown)}; known are '
                f'{sorted(known)}. paramwise_cfg=dict(_delete_=True, ...) drops those of a schedule'
            )
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ConfigError(
                f'paramwise_cfg of {type(self).__name__}: layer_decay_rate must be a number in '
                f'(0, 1], got {rate!r}'
            )
        if self.base_lr is None:
            raise ConfigError(f'{type(self).__name__} needs the lr of the optimizer')
        self.rate = float(rate)
        self.faithful = bool(self.paramwise_cfg.get('faithful', False))

    @abstractmethod
    def resolve_size(self, found: Mapping[str, Sequence[str]], model: nn.Module) -> Any:
        """Compares ``paramwise_cfg`` with the model.

        Args:
            found: Names within the backbone, for each prefix at which one was found.
            model: The model.

        Returns:
            What :meth:`depth_of` and :meth:`last_depth` take as ``size``.
        """

    @abstractmethod
    def depth_of(self, name: str, size: Any) -> int:
        """Depth of a parameter, by its name within the backbone."""

    @abstractmethod
    def last_depth(self, size: Any) -> int:
        """Depth of everything outside the backbone."""

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: Any) -> None:
        """Fills the groups of the optimizer.

        Args:
            params: What is filled; each group has ``group_name`` (``layer_{depth}_decay`` or
                ``_no_decay``) and ``lr_scale`` beside what the optimizer takes.
            module: The whole model.
            **kwargs: Not used.
        """
        names = {
            name: _WRAPPERS.sub('', name)
            .replace('._orig_mod.', '.')
            .replace('_fsdp_wrapped_module.', '')
            for name, _ in module.named_parameters()
        }
        found = self._find_backbones(list(names.values()))
        size = self.resolve_size(found, module)
        last = self.last_depth(size)
        prefixes = sorted(found, key=len, reverse=True)
        groups: dict[tuple, dict[str, Any]] = {}
        for full_name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            name = names[full_name]
            prefix = next((p for p in prefixes if name.startswith(p)), None)
            depth = last if prefix is None else self.depth_of(name[len(prefix) :], size)
            decays = not (
                # With FSDP a parameter is a part of its numbers, in one row.
                getattr(parameter, 'whole_ndim', parameter.ndim) <= 1
                or name.endswith('.bias')
                or any(part in name for part in self.no_decay)
            )
            custom = self._custom(name)
            key = (depth, decays, tuple(sorted(custom.items())))
            if key not in groups:
                groups[key] = self._new_group(depth, last, decays, custom)
                params.append(groups[key])
            groups[key]['params'].append(parameter)
        self._say(params, found)

    def _find_backbones(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Prefixes under which there are names of this kind of backbone, and these names."""
        prefixes: dict[str, set[bool]] = {}
        for name in names:
            for match in self.pattern.finditer(name):
                prefixes.setdefault(name[: match.start()], set()).add(match['layer'] is not None)
        # Heads may have numbered blocks too, and other backbones a patch embedding.
        kept = [prefix for prefix, kinds in prefixes.items() if len(kinds) == 2]
        if self.faithful:
            kept = [prefix for prefix in kept if prefix == self.faithful_prefix]
        elif not kept:
            raise ConfigError(
                f'{type(self).__name__}: no parameter of the model has a name of such a backbone '
                f'(the first are {list(names[:3])}): every learning rate would be the same. Use '
                'the constructor of that backbone'
            )
        return {p: [n[len(p) :] for n in names if n.startswith(p)] for p in kept}

    def _custom(self, name: str) -> dict[str, float]:
        keys = self.paramwise_cfg.get('custom_keys') or {}
        hit = max((key for key in keys if key in name), key=lambda k: (len(k), k), default=None)
        if hit is None:
            return {}
        unknown = set(keys[hit]) - {'lr_mult', 'decay_mult'}
        if unknown:
            raise ConfigError(f'custom_keys[{hit!r}]: unknown {sorted(unknown)}')
        return {option: float(value) for option, value in keys[hit].items()}

    def _new_group(
        self, depth: int, last: int, decays: bool, custom: Mapping[str, float]
    ) -> dict[str, Any]:
        scale = self.rate ** (last - depth) * custom.get('lr_mult', 1.0)
        group: dict[str, Any] = dict(
            params=[],
            lr=self.base_lr * scale,
            lr_scale=scale,
            group_name=f'layer_{depth}_{"decay" if decays else "no_decay"}',
        )
        if self.base_wd is not None:
            factor = custom.get('decay_mult', 1.0 if decays else 0.0)
            group['weight_decay'] = self.base_wd * factor
        elif not decays:
            group['weight_decay'] = 0.0
        return group

    def _say(self, params: Sequence[dict], found: Mapping[str, Any]) -> None:
        where = ', '.join(repr(prefix) for prefix in found) or 'nowhere'
        scales = [group['lr_scale'] for group in params]
        text = f'Layer decay {self.rate} on the parameters below {where}: {len(params)} groups'
        if scales:
            text += f', learning rates times {min(scales):.4g} to {max(scales):.4g}'
        if not found:
            text += (
                '. The published runs had it so (faithful=True): one learning rate for all layers'
            )
        print_log(text, logger='current')
