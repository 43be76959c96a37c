# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Height of every pixel, as a head of mmseg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.utils import resize

from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.models.segmentation.deconv_head import DeconvHead
from mmrsfm.registry import MODELS


@MODELS.register_module()
class HeightHead(DeconvHead):
    """Regresses one number a pixel with the decoder of :class:`DeconvHead`.

    The network gives ``height / height_scale`` without an activation, and the loss compares that;
    predictions are in the unit of the targets again. Pixels of which the height is not known (NaN
    in ``gt_depth_map``, and padding) do not count.

    MaRS (AAAI 2026) fine-tunes so on DFC23: four blocks, a transposed convolution to 32 channels,
    the L1 loss and ``height_scale=183.17412``, the largest height of the data set.

    Args:
        in_channels: Channels of the map.
        height_scale: What the targets are divided by, in metres.
        block_channels: See :class:`DeconvHead`; by default in_channels / 2, 4, 8 and 16.
        last_channels: See :class:`DeconvHead`.
        loss_decode: A loss of mmseg's form that passes over NaN, or several.
        **kwargs: See :class:`DeconvHead`.

    Raises:
        ConfigError: If ``height_scale`` is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        height_scale: float = 1.0,
        block_channels: Sequence[int] | None = None,
        last_channels: int | None = 32,
        loss_decode: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if height_scale <= 0:
            raise ConfigError(f'HeightHead: height_scale must be positive, got {height_scale}')
        if block_channels is None:
            block_channels = [in_channels // 2**step for step in range(1, 5)]
        if loss_decode is None:
            loss_decode = dict(type='mmrsfm.RegressionLoss', kind='l1')
        # One output, and a threshold that nothing reads: mmseg warns without it.
        kwargs.update(num_classes=1, out_channels=1, threshold=0.0)
        super().__init__(
            in_channels=in_channels,
            block_channels=block_channels,
            last_channels=last_channels,
            loss_decode=loss_decode,
            **kwargs,
        )
        self.height_scale = height_scale

    def loss_by_feat(self, seg_logits: torch.Tensor, batch_data_samples: Any) -> dict[str, Any]:
        """The losses of a batch, and the mean absolute error in the unit of the targets.

        Args:
            seg_logits: Scaled heights, (B, 1, h, w).
            batch_data_samples: With ``gt_depth_map`` (1, H, W).

        Returns:
            Losses by their names, and ``mae``, which is for the log.

        Raises:
            ConfigError: If a sample has no heights.
        """
        target = torch.stack([_heights(sample) for sample in batch_data_samples])
        if seg_logits.shape[2:] != target.shape[2:]:
            seg_logits = self._resize(seg_logits, target.shape[2:])
        losses: dict[str, Any] = {}
        several = isinstance(self.loss_decode, torch.nn.ModuleList)
        for loss in self.loss_decode if several else [self.loss_decode]:
            value = loss(seg_logits, target / self.height_scale)
            losses[loss.loss_name] = losses.get(loss.loss_name, 0) + value
        error = (seg_logits.detach() * self.height_scale - target).abs()
        valid = torch.isfinite(target)
        losses['mae'] = error[valid].sum() / valid.sum().clamp(min=1)
        return losses

    def predict_by_feat(
        self, seg_logits: torch.Tensor, batch_img_metas: list[dict[str, Any]]
    ) -> torch.Tensor:
        """Heights at the size of the network's input.

        Args:
            seg_logits: Scaled heights, (B, 1, h, w).
            batch_img_metas: What mmseg knows of the images.

        Returns:
            Heights (B, 1, H, W), in the unit of the targets.
        """
        heights: torch.Tensor = super().predict_by_feat(seg_logits, batch_img_metas)
        return heights * self.height_scale

    def _resize(self, maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
        resized: torch.Tensor = resize(
            maps, size=tuple(size), mode='bilinear', align_corners=self.align_corners
        )
        return resized


def _heights(sample: Any) -> torch.Tensor:
    """(1, H, W) of a sample; NaN in what the data preprocessor padded."""
    path = sample.metainfo.get('img_path')
    if 'gt_depth_map' not in sample:
        raise ConfigError(
            f'{path}: the sample has no heights. Put mmrsfm.LoadHeightMap before '
            'mmrsfm.PackSegInputs into the pipeline'
        )
    heights: torch.Tensor = sample.gt_depth_map.data.float()
    left, right, top, bottom = sample.metainfo.get('padding_size', (0, 0, 0, 0))
    if any((left, right, top, bottom)):
        # mmseg pads with a class number.
        height, width = heights.shape[-2:]
        inside = torch.zeros_like(heights, dtype=torch.bool)
        inside[..., top : height - bottom, left : width - right] = True
        heights = torch.where(inside, heights, torch.full_like(heights, torch.nan))
    if heights.ndim != 3 or heights.shape[0] != 1:
        raise ImageSizeError(
            f'heights are one map (1, H, W), got {tuple(heights.shape)}', path=path
        )
    return heights
