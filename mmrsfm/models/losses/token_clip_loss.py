# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The contrastive loss of CLIP between the tokens of two modalities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmrsfm.models.losses.paired_tokens import PairedTokens, info_nce
from mmrsfm.registry import MODELS


@MODELS.register_module()
class TokenCLIPLoss(nn.Module):
    """Each token finds its partner in the other modality among all; the temperature is learned.

    ``logits = exp(log_scale) * r . s`` of tokens of unit length, and the symmetric cross entropy
    (CLIP, arXiv 2103.00020). MaRS' published code has it as the alternative ``'clip'`` to
    :class:`CrossGranularityContrastiveLoss`; its parameter is called ``contrast_temp`` there.

    Args:
        log_scale: Value of the parameter at the beginning; published: 1.
        drop_first_token: See :class:`CrossGranularityContrastiveLoss`, as for the following.
        gather: Whether negatives come from all ranks.
        max_elements: Most numbers of a block of logits.
    """

    def __init__(
        self,
        log_scale: float = 1.0,
        drop_first_token: bool = False,
        gather: bool = True,
        max_elements: int = 2**24,
    ) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))
        self.drop_first_token = drop_first_token
        self.gather = gather
        self.max_elements = max_elements

    def forward(
        self, first: Tensor, second: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :meth:`CrossGranularityContrastiveLoss.forward`; returns ``clip`` alone."""
        with torch.autocast(first.device.type, enabled=False):
            pairs = PairedTokens.normalized(
                first, second, valid, self.drop_first_token, self.gather
            )
            return {'clip': info_nce(pairs, self.log_scale.exp(), self.max_elements)}
