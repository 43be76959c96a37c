# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A segmentor whose backbone takes the two dates itself."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.segmentors import EncoderDecoder

from mmrsfm.compat.opencd.models.siam_encoder_decoder import split_dates
from mmrsfm.compat.opencd.registry import MODELS


@MODELS.register_module()
class DIEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder with a dual-input backbone: ``backbone(first, second)``.

    Args:
        backbone: Takes two (B, C, H, W), returns a list of maps.
        decode_head: A decode head of mmseg's form.
        backbone_inchannels: Channels C of one date.
        **kwargs: As of mmseg's EncoderDecoder; a neck takes the list of maps.
    """

    def __init__(
        self, backbone: Any, decode_head: Any, backbone_inchannels: int = 3, **kwargs: Any
    ) -> None:
        super().__init__(backbone=backbone, decode_head=decode_head, **kwargs)
        self.backbone_inchannels = backbone_inchannels

    def extract_feat(self, inputs: torch.Tensor) -> Any:
        """Maps of the pair (B, 2C, H, W)."""
        maps = self.backbone(*split_dates(inputs, self.backbone_inchannels))
        return self.neck(maps) if self.with_neck else maps
