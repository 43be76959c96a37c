# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The initialiser ``mmrsfm.Pretrained``: what configs name in ``init_cfg``."""

from __future__ import annotations

from typing import Any

from mmengine.model import update_init_info
from torch import nn

from mmrsfm.checkpoints.loading import load_pretrained
from mmrsfm.errors import ConfigError
from mmrsfm.registry import WEIGHT_INITIALIZERS

TYPE = 'mmrsfm.Pretrained'


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Loads a checkpoint of any known layout, completely or not at all.

    Example::

        backbone=dict(
            type='mmrsfm.CrossScaleViT', in_channels=4,
            init_cfg=dict(type='mmrsfm.Pretrained', checkpoint='cross_scale_mae_base.pth',
                          adapt='by_name', contract=dict(band_names=['B02', 'B03', 'B04', 'B08'])))

    MMEngine gives its own type ``'Pretrained'`` three privileges by the spelling of that word: it
    runs after all other initialisation of the module, after that of the children, and classes
    such as mmpretrain's ViT leave their parameters alone where they see it. This class takes them:
    it first lets the module initialise itself as if there were no checkpoint, then loads, then
    marks the module as initialised and shows ``type='Pretrained'`` to whoever looks at its
    ``init_cfg``.

    In a list of ``init_cfg`` it must be the last. A class that initialises its parameters again
    after ``super().init_weights()`` without looking (mmpretrain's ``MAEViT``) can't be kept from
    it: :class:`mmrsfm.PretrainedGuardHook` notices, and such a class needs ``load_from``.

    Args:
        checkpoint: A file or address, see :func:`mmrsfm.checkpoints.read_checkpoint`.
        layout: See :func:`mmrsfm.checkpoints.load_pretrained`, as for all further arguments.
        **kwargs: ``allow_missing``, ``adapt``, ``contract``, ``sha256``, ``md5``, ``weights``,
            ``part``, ``source_grid``.
    """

    def __init__(self, checkpoint: str, layout: str = 'auto', **kwargs: Any) -> None:
        self.checkpoint = checkpoint
        self.arguments = {'layout': layout, **kwargs}

    def __call__(self, module: nn.Module) -> None:
        """Initialises ``module`` and loads the checkpoint into it."""
        self._check_last(module)
        initialise = getattr(module, 'init_weights', None)
        if initialise is not None and not getattr(module, '_is_init', False):
            module.init_cfg = None  # type: ignore[assignment]
            initialise()
        load_pretrained(module, self.checkpoint, **self.arguments)
        for child in module.modules():
            if hasattr(child, '_is_init'):
                child._is_init = True  # type: ignore[assignment]
        if hasattr(module, 'init_cfg'):
            shown = dict(type='Pretrained', checkpoint=self.checkpoint, loaded_by=TYPE)
            module.init_cfg = {**shown, **self.arguments}  # type: ignore[assignment]
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'{TYPE}: load from {self.checkpoint}')

    def _check_last(self, module: nn.Module) -> None:
        configs = getattr(module, 'init_cfg', None)
        if isinstance(configs, list) and configs and not is_ours(configs[-1]):
            raise ConfigError(
                f'init_cfg of {type(module).__name__}: {TYPE} must be the last of the list; '
                f'{configs[-1].get("type")!r} after it would overwrite what it loads'
            )


def is_ours(config: Any) -> bool:
    """Whether an ``init_cfg`` names this initialiser."""
    return isinstance(config, dict) and config.get('type') in (TYPE, Pretrained)
