# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A segmentor of two dates: one backbone for both, a neck that fuses them, any head of mmseg."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.segmentors import EncoderDecoder
from torch.nn.modules.batchnorm import _BatchNorm

from mmrsfm.compat.opencd.registry import MODELS
from mmrsfm.errors import BandMismatchError, ConfigError


@MODELS.register_module()
class SiamEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder for bi-temporal images (B, 2C, H, W), first date first.

    The backbone sees the dates of a batch together, as 2B images, whenever that gives the same
    numbers: that is faster, and activation checkpointing under distributed training does not meet
    each parameter twice. A batch normalisation that takes its statistics from the batch (while
    training) would mix the dates; then they go through one after the other, as in Open-CD.

    Args:
        backbone: Takes (B, C, H, W), returns a list of maps.
        decode_head: A decode head of mmseg's form.
        neck: Takes the maps of both dates, e.g. ``FeatureFusionNeck``.
        backbone_inchannels: Channels C of one date.
        **kwargs: ``auxiliary_head``, ``train_cfg``, ``test_cfg``, ``data_preprocessor``,
            ``pretrained``, ``init_cfg`` as of mmseg's EncoderDecoder.

    Raises:
        ConfigError: Without a neck.
    """

    def __init__(
        self,
        backbone: Any,
        decode_head: Any,
        neck: Any = None,
        backbone_inchannels: int = 3,
        **kwargs: Any,
    ) -> None:
        if neck is None:
            raise ConfigError(
                f'{type(self).__name__} needs a neck that fuses the two dates, e.g. '
                "neck=dict(type='opencd.FeatureFusionNeck', policy='abs_diff')"
            )
        super().__init__(backbone=backbone, decode_head=decode_head, neck=neck, **kwargs)
        self.backbone_inchannels = backbone_inchannels

    def extract_feat(self, inputs: torch.Tensor) -> Any:
        """Maps of both dates, fused.

        Args:
            inputs: (B, 2C, H, W), normalised.

        Returns:
            What the neck returns: a tuple of maps.

        Raises:
            BandMismatchError: If there are not twice ``backbone_inchannels`` channels.
        """
        first, second = split_dates(inputs, self.backbone_inchannels)
        # In an exported graph the batch has no number that could be halved.
        if torch.compiler.is_exporting() or _uses_batch_statistics(self.backbone):
            return self.neck(self.backbone(first), self.backbone(second))
        maps = self.backbone(torch.cat([first, second]))
        pairs = [level.chunk(2) for level in maps]
        return self.neck([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def split_dates(inputs: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two dates of (B, 2C, H, W).

    Raises:
        BandMismatchError: If the number of channels is not twice ``channels``.
    """
    if inputs.shape[1] != 2 * channels:
        raise BandMismatchError(
            f'the model takes two dates of {channels} channels each (backbone_inchannels), got '
            f'{inputs.shape[1]} channels',
            hint='Load both dates by MultiImgLoadImageFromFile and pack by MultiImgPackSegInputs',
        )
    return inputs[:, :channels], inputs[:, channels:]


def _uses_batch_statistics(backbone: torch.nn.Module) -> bool:
    return any(
        isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        for module in backbone.modules()
    )
