# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Classifies what happened between two images of one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor, nn

from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.registry import MODELS

REDUCTIONS = ('avg', 'max')


@MODELS.register_module()
class PairClassifier(ImageClassifier):
    """One backbone for both images, the difference of their features, one linear layer.

    Both images are cut into tiles of the size that the backbone was pretrained with, row by row;
    what is left at the right and at the bottom is dropped. Each tile becomes a vector f (the mean
    over the map, where the backbone gives a map); the head gets the mean, or the largest, of
    ``|f(first) - f(second)|`` over the tiles. The flood model of SAR-W-MixMAE ("SAR-W-MixMAE: SAR
    Foundation Model Training Using Backscatter Power Weighting", IGARSS 2025, arXiv 2503.01181;
    github.com/acaglayan/SAR-W-MixMAE) on SEN12-FLOOD.

    Parameters are named as in mmpretrain's ``ImageClassifier``: ``backbone``, ``neck``, ``head``.

    Args:
        backbone: Any that gives vectors (N, F) or maps (N, F, h, w); of several the last counts.
        head: A classification head of mmpretrain, e.g. ``LinearClsHead``.
        neck: Between backbone and difference.
        tile_size: Side of the tiles in pixels; ``None``: each image is one tile.
        tile_reduction: ``'avg'`` or ``'max'`` over the tiles.
        legacy_tiling: Needed by the released SEN12-FLOOD checkpoint, and by nothing else: the
            published code forgets to bring the tiles before the channels, so that with more than
            one tile the C "channels" of a tile are C neighbouring tiles of one polarisation.
            Numbering (polarisation, tile) from 0, tile n of T has those from C n to C n + C - 1.
        data_preprocessor: :class:`mmrsfm.MultiBandDataPreprocessor`, with the constants of one
            image.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: For an unknown reduction or a tile size that is none.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module | None = None,
        neck: dict | nn.Module | None = None,
        tile_size: int | None = 128,
        tile_reduction: str = 'avg',
        legacy_tiling: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if tile_reduction not in REDUCTIONS:
            raise ConfigError(f'tile_reduction is one of {REDUCTIONS}, got {tile_reduction!r}')
        if tile_size is not None and tile_size < 1:
            raise ConfigError(f'tile_size must be at least 1, or None, got {tile_size}')
        super().__init__(
            backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        self.tile_size = tile_size
        self.tile_reduction = tile_reduction
        self.legacy_tiling = legacy_tiling

    def tiles(self, images: Tensor) -> Tensor:
        """Cuts images into tiles.

        Args:
            images: Shape (B, C, H, W).

        Returns:
            Shape (B, T, C, t, t), the T tiles row by row; without ``tile_size`` (B, 1, C, H, W).

        Raises:
            ImageSizeError: If the images are smaller than a tile.
        """
        side = self.tile_size
        if side is None:
            return images.unsqueeze(1)
        batch, channels, height, width = images.shape
        if height < side or width < side:
            raise ImageSizeError(
                f'images of {height} x {width} pixels (H x W) hold no tile of {side}',
                hint='Give PairClassifier a smaller tile_size, or None for the whole image',
            )
        cut = images.unfold(2, side, side).unfold(3, side, side)  # (B, C, rows, columns, t, t)
        if not self.legacy_tiling:
            cut = cut.permute(0, 2, 3, 1, 4, 5)
        return cut.reshape(batch, -1, channels, side, side)

    def tile_features(self, images: Tensor) -> Tensor:
        """One vector for each tile: (B, C, H, W) becomes (B, T, F)."""
        tiles = self.tiles(images)
        features: Any = self.backbone(tiles.flatten(0, 1))
        if self.with_neck:
            features = self.neck(features)
        last = features[-1] if isinstance(features, (tuple, list)) else features
        if last.ndim == 4:
            last = last.mean((2, 3))
        return last.unflatten(0, tiles.shape[:2])

    def extract_feat(self, inputs: Sequence[Tensor], stage: str = 'neck') -> tuple[Tensor] | Tensor:
        """What the head decides on.

        Args:
            inputs: Before and after, each of shape (B, C, H, W), as
                :class:`mmrsfm.PackImagePair` and the data preprocessor give them.
            stage: ``'neck'``, or ``'pre_logits'``: what the head makes of it before its last layer.

        Returns:
            A tuple of one tensor (B, F); with ``'pre_logits'`` a tensor.

        Raises:
            ConfigError: If there are not two images of one shape, or for another stage.
        """
        if isinstance(inputs, Tensor) or len(inputs) != 2 or inputs[0].shape != inputs[1].shape:
            shapes: Any = tuple(inputs.shape) if isinstance(inputs, Tensor) else [
                tuple(one.shape) for one in inputs
            ]  # fmt: skip
            raise ConfigError(
                'PairClassifier takes two batches of images of one shape (mmrsfm.PackImagePair in '
                f'the pipeline), got {shapes}'
            )
        if stage not in ('neck', 'pre_logits'):
            raise ConfigError(f"stage is 'neck' or 'pre_logits', got {stage!r}")
        # One pass for both: twice the batch, half the launches.
        first, second = self.tile_features(torch.cat(tuple(inputs))).chunk(2)
        difference = (first - second).abs()
        reduced = difference.mean(1) if self.tile_reduction == 'avg' else difference.amax(1)
        features = (reduced,)
        return self.head.pre_logits(features) if stage == 'pre_logits' else features

    def loss(self, inputs: Sequence[Tensor], data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """The loss of the head, for samples with ``gt_label``."""
        features = self.extract_feat(inputs)
        # Data preprocessors leave the labels of views where they are.
        samples = [sample.to(features[0].device) for sample in data_samples]
        return self.head.loss(features, samples)  # type: ignore[no-any-return]
