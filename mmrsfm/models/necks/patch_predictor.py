# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The predictor of Cross-Scale MAE (arXiv 2401.15855): from one view's embedding to the other's."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class PatchPredictor(BaseModule):
    """Linear, normalisation, ReLU, linear, on every patch.

    Args:
        channels: Number of channels that go in and come out.
        hidden_channels: Number of channels between.
        num_patches: Number of patches L; needed by ``norm='patch_bn'``, which ties the module to
            this grid.
        norm: ``'patch_bn'``, as published: batch normalisation with one pair of statistics for
            each PATCH POSITION, over samples and hidden channels; ``'bn'``: the ordinary one, for
            each hidden channel over samples and patches; ``'ln'``: layer normalisation. All work
            with one sample; the first two are ordinary ``BatchNorm1d``, which MMEngine's
            ``sync_bn`` converts.
        init_cfg: MMEngine's initialisation config. As published, the layers keep PyTorch's own
            initialisation.
    """

    NORMS = ('patch_bn', 'bn', 'ln')

    def __init__(
        self,
        channels: int,
        hidden_channels: int = 2048,
        num_patches: int | None = None,
        norm: str = 'patch_bn',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if norm not in self.NORMS:
            raise ConfigError(f'predictor norm {norm!r} is not one of {self.NORMS}')
        if norm == 'patch_bn' and num_patches is None:
            raise ConfigError("predictor norm 'patch_bn' needs num_patches")
        self.norm = norm
        self.num_patches = num_patches
        layer: nn.Module
        if norm == 'patch_bn':
            layer = nn.BatchNorm1d(num_patches)  # type: ignore[arg-type]
        elif norm == 'bn':
            layer = nn.BatchNorm1d(hidden_channels)
        else:
            layer = nn.LayerNorm(hidden_channels, eps=1e-6)
        # Numbered as in the published state dicts: 0 and 3 linear, 1 normalisation.
        self.add_module('0', nn.Linear(channels, hidden_channels))
        self.add_module('1', layer)
        self.add_module('2', nn.ReLU(inplace=True))
        self.add_module('3', nn.Linear(hidden_channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps patches of shape (B, L, channels) to the same shape.

        Raises:
            ConfigError: If the grid is not that of ``norm='patch_bn'``.
        """
        first, norm, relu, second = self.children()
        if self.norm == 'patch_bn' and x.shape[1] != self.num_patches:
            raise ConfigError(
                f"the predictor's batch normalisation is made for {self.num_patches} patches, the "
                f"images have {x.shape[1]}: pretrain at img_size, or set the predictor's norm to "
                "'bn' or 'ln'"
            )
        hidden = first(x)
        if self.norm == 'bn':
            hidden = norm(hidden.flatten(0, 1)).view_as(hidden)
        else:
            hidden = norm(hidden)
        return second(relu(hidden))
