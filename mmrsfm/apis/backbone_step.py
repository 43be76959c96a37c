# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One pass through the backbone of any config, that can be timed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmrsfm.apis.training_step import Clock, quiet, without_pretrained
from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError

PASSES = ('forward', 'train')


class BackboneStep:
    """The backbone of a config on one random batch, without neck, head and optimizer.

    It has the interface of :class:`mmrsfm.apis.training_step.TrainingStep`. Weights are
    initialised, never loaded.

    Args:
        cfg: A config with ``model.backbone``, or ``backbone``; nothing else of it is used.
        what: ``'forward'``: inference; ``'train'``: forward and backward, from random gradients of
            all feature maps.
        input_shape: (C, H, W) of an image.
        device: For example ``'cpu'`` or ``'cuda'``.
        batch_size: Images in a batch.
        amp: Whether to compute in bfloat16 where autocast does.

    Raises:
        ConfigError: If the config has no backbone, or returns something else than tensors.
    """

    data = 'random'
    note = ''

    def __init__(
        self,
        cfg: Config,
        what: str,
        input_shape: tuple[int, int, int],
        device: str = 'cpu',
        batch_size: int = 1,
        amp: bool = False,
    ) -> None:
        backbone = (cfg.get('model') or cfg).get('backbone')
        if not backbone:
            raise ConfigError('the config has no model.backbone')
        if what not in PASSES:
            raise ConfigError(f'{what!r} is not one of {PASSES}')
        self.what = what
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.amp = amp
        scope = cfg.get('default_scope') or 'mmpretrain'
        run_config.register_scope(scope)
        with DefaultScope.overwrite_default_scope(scope), quiet():
            self.model = MODELS.build(without_pretrained(deepcopy(backbone)))
            self.model.init_weights()
        self.model = self.model.to(self.device).train(what == 'train')
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch_size, *input_shape, generator=generator)
        self.images = images.to(self.device)
        self._gradients: list[torch.Tensor] | None = None

    def _forward(self) -> list[torch.Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            maps: Any = self.model(self.images)
        maps = list(maps) if isinstance(maps, list | tuple) else [maps]
        if not all(isinstance(value, torch.Tensor) for value in maps):
            raise ConfigError(f'the backbone {type(self.model).__name__} returns no tensors')
        return maps

    def run(self) -> dict[str, float]:
        """Makes one pass.

        Returns:
            Seconds: ``forward``, with ``what='train'`` ``backward``, and ``step``, their sum.
        """
        clock = Clock(self.device)
        times = {'data_wait': 0.0}
        if self.what == 'forward':
            with torch.no_grad():  # inference_mode would hide the products from the floor
                self._forward()
            times['forward'] = clock.lap()
        else:
            maps = self._forward()
            times['forward'] = clock.lap()
            if self._gradients is None:
                self._gradients = [torch.randn_like(value) for value in maps]
                clock.lap()
            torch.autograd.backward(maps, self._gradients)
            times['backward'] = clock.lap()
            self.model.zero_grad()
        times['step'] = sum(times.values())
        return times
