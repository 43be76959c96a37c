# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The cross-granularity contrastive loss of MaRS (AAAI 40(14):11685-11693, 2026)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.pair_logsumexp import pair_logsumexp
from mmrsfm.models.losses.paired_tokens import PairedTokens, info_nce
from mmrsfm.registry import MODELS

TERMS = ('patch', 'image', 'patch_image')
_WEIGHTS = dict(zip(TERMS, (0.5, 0.3, 0.2), strict=True))
_TEMPERATURES = dict(zip(TERMS, (0.1, 0.05, 0.07), strict=True))


@MODELS.register_module()
class CrossGranularityContrastiveLoss(nn.Module):
    """Pulls two modalities of one place together: by patches, by images, and patches by images.

    With r and s the tokens of the two modalities, of unit length, B images of N tokens, and with
    ``g = mean over the tokens of an image`` (not normalised again):

    * ``patch``: each token finds its partner among all B N tokens of the other modality,
      temperature 0.1, in both directions;
    * ``image``: each ``g`` finds its partner among B, temperature 0.05, in both directions;
    * ``patch_image``: each token finds the ``g`` of its image in the other modality among B,
      temperature 0.07; the mean of both directions.

    Nothing of (B N)^2 numbers is ever made: the sums are taken block by block, with the value and
    gradient of the whole. Pairs that are not valid take no part, neither as anchors nor as
    negatives; without any the terms are 0, and still part of the graph.

    The published code differs from the defaults here, in what looks unintended; each is an
    argument: the first token of each image is left out, as if it were a class token
    (``drop_first_token=True``); ``patch_image`` draws every token to image ``b // N``, in practice
    the first of the batch, and counts each of the B columns N times, a constant log N
    (``patch_image_targets='as_coded'``); the negatives of other ranks are not seen
    (``gather=False``).

    Args:
        weights: Of the terms; one that is 0 is not computed. Published: 0.5, 0.3, 0.2.
        temperatures: Of the terms.
        patch_image_targets: ``'per_image'`` or ``'as_coded'``.
        drop_first_token: Whether the first token of each image is left out.
        gather: Whether negatives come from all ranks, with gradients: the loss of a batch is then
            the same on any number of ranks. Every rank needs the same number of images.
        max_elements: Most numbers of a block of logits; 2**24 are 64 MiB.

    Raises:
        ConfigError: If an argument is unknown or has no meaning.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        temperatures: Mapping[str, float] | None = None,
        patch_image_targets: str = 'per_image',
        drop_first_token: bool = False,
        gather: bool = True,
        max_elements: int = 2**24,
    ) -> None:
        super().__init__()
        self.weights = {**_WEIGHTS, **(weights or {})}
        self.temperatures = {**_TEMPERATURES, **(temperatures or {})}
        unknown = (set(self.weights) | set(self.temperatures)) - set(TERMS)
        if unknown:
            raise ConfigError(f'{sorted(unknown)} are no terms of the loss, which has {TERMS}')
        if min(self.temperatures.values()) <= 0:
            raise ConfigError(f'temperatures must be > 0, got {self.temperatures}')
        if patch_image_targets not in ('per_image', 'as_coded'):
            raise ConfigError(
                "patch_image_targets must be 'per_image' or 'as_coded', got "
                f'{patch_image_targets!r}'
            )
        if max_elements < 1:
            raise ConfigError(f'max_elements must be at least 1, got {max_elements}')
        self.patch_image_targets = patch_image_targets
        self.drop_first_token = drop_first_token
        self.gather = gather
        self.max_elements = max_elements

    def forward(
        self, first: Tensor, second: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Computes the terms of this rank's images.

        Args:
            first: Tokens of one modality, shape (B, N, C).
            second: Tokens of the other modality at the same places, same shape.
            valid: Shape (B, N), bool: where both modalities have data; ``None``: everywhere.

        Returns:
            ``cgcl_patch``, ``cgcl_image`` and ``cgcl_patch_image``, weighted; float32 under
            automatic mixed precision too.
        """
        with torch.autocast(first.device.type, enabled=False):
            pairs = PairedTokens.normalized(
                first, second, valid, self.drop_first_token, self.gather
            )
            terms = {}
            for term in TERMS:
                if self.weights[term] == 0:
                    continue
                scale = 1 / self.temperatures[term]
                if term == 'patch':
                    loss = info_nce(pairs, scale, self.max_elements)
                elif term == 'image':
                    loss = info_nce(pairs.means(), scale, self.max_elements)
                else:
                    one, other = pairs.swapped(), pairs
                    loss = (self._to_images(one, scale) + self._to_images(other, scale)) / 2
                terms[f'cgcl_{term}'] = loss * self.weights[term]
            return terms

    def _to_images(self, pairs: PairedTokens, scale: float) -> Tensor:
        """From the tokens of the first modality to the images of the second."""
        batch, number, channels = pairs.first.shape
        images = pairs.means()
        targets = images.everything(images.second).flatten(0, 1)
        anchors = pairs.first.flatten(0, 1) * scale
        sums, _ = pair_logsumexp(
            anchors,
            targets,
            None if pairs.valid is None else pairs.valid.flatten(),
            images.all_valid(),
            self.max_elements,
            columns=False,
        )
        if self.patch_image_targets == 'per_image':
            target = images.second
        else:
            start = torch.distributed.get_rank() * batch if pairs.ranks > 1 else 0
            own = torch.arange(start, start + batch, device=targets.device)
            target = targets[own // number][:, None]
            sums = sums + math.log(number)
        attraction = (anchors.view(batch, number, channels) * target).sum(-1)
        return pairs.mean(sums - attraction.flatten())
