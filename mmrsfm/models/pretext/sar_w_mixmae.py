# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAR-W-MixMAE: mixed and masked autoencoding of SAR images, weighted by their backscatter.

"SAR-W-MixMAE", IGARSS 2025, arXiv 2503.01181 (github.com/acaglayan/SAR-W-MixMAE), on MixMIM, arXiv
2205.13137. Written anew from a description of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import patch_grid, patchify, unpatchify
from mmrsfm.models.losses.masked_reconstruction_loss import patch_statistics
from mmrsfm.models.pretext.views import packed, stack_valid
from mmrsfm.registry import MODELS

MASK_SCOPES = ('batch', 'pair')


@dataclass(frozen=True)
class Mixtures:
    """A batch, and how it is mixed.

    Attributes:
        images: Shape (B, C, H, W), 0 where there are no data.
        valid: Shape (B, C, H, W), bool, where there are data.
        mask: Shape (1, h, w) or (B, h, w), bool, of cells of the encoder's stride: True where
            mixture i shows image B - 1 - i, False where it shows image i.
    """

    images: Tensor
    valid: Tensor
    mask: Tensor


@MODELS.register_module()
class SARWMixMAE(BaseSelfSupervisor):
    """Mixes pairs of images, encodes the mixtures, and predicts both images of each.

    Image i of a batch of B is mixed with image B - 1 - i, and the other way round, by one mask; in
    the encoder, tokens of the two never attend to each other. The decoder gets the mixture twice:
    with mask tokens for what belongs to one image, and for what belongs to the other. Each pixel of
    each image is thus predicted once, from a mask token, and the loss, weighted by the image's own
    backscatter, is over all of them. In an odd batch the middle image is mixed with itself.

    Only the embeddings of the mask tokens become pixels: the last layer works on half of the
    tokens, with the numbers of the published order (predict both, then choose).

    Randomness: a data sample may bring ``mask_noise`` (V, L) (:class:`mmrsfm.DrawMaskNoise`), of
    which the first row decides: cells with the smallest noise are those that are exchanged. Without
    it the noise is drawn here from torch's global generator. ``mask_scope='batch'``, as published:
    the whole batch of a process shares one mask (the first sample's); ``'pair'``: each pair has its
    own (that of its first sample), so that a step sees more masks.

    What is invalid (NaN, or False in the data samples' ``valid_mask``) becomes 0, the mean of its
    band, and is left out of the loss.

    Names of parameters: ``backbone``, ``neck``; the layout ``sar_w_mixmae`` reads and writes
    checkpoints of the authors.

    Args:
        backbone: :class:`mmrsfm.MixMIM`.
        neck: :class:`mmrsfm.MixMIMDecoder`; channels and stride are filled in from the backbone,
            where they are not given.
        loss: :class:`mmrsfm.SARWeightedReconstructionLoss`. For its ``weight_domain='db'`` the
            data preprocessor must have mean and std of images in dB.
        mask_ratio: Share of the cells that is exchanged, in (0, 1), rounded down.
        mask_scope: ``'batch'`` or ``'pair'``.
        data_preprocessor: :class:`mmrsfm.MultiBandDataPreprocessor`.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        loss: Mapping[str, Any] | nn.Module | None = None,
        mask_ratio: float = 0.5,
        mask_scope: str = 'batch',
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        encoder: Any = backbone
        if not isinstance(backbone, nn.Module):
            encoder = MODELS.build(backbone)
        if not isinstance(neck, nn.Module):
            neck = MODELS.build({**_decoder_of(encoder), **(neck or {})})
        super().__init__(
            backbone=encoder, neck=neck, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        self.stride = int(self.neck.encoder_stride)
        self.recon_loss: Any = loss
        if not isinstance(loss, nn.Module):
            default = dict(type='mmrsfm.SARWeightedReconstructionLoss', patch_size=self.stride)
            self.recon_loss = MODELS.build({**default, **(loss or {})})
        patch = tuple(self.recon_loss.patch_size)
        if patch != (self.stride, self.stride):
            raise ConfigError(
                f'patch_size of the loss is {patch}, but the decoder predicts patches of '
                f'{self.stride} pixels'
            )
        if self.recon_loss.needs_decibels and not hasattr(self.data_preprocessor, 'denormalize'):
            raise ConfigError(
                "weight_domain='db' needs a data preprocessor that knows mean and std of the dB "
                "values (mmrsfm.MultiBandDataPreprocessor); or set weight_domain='normalized'"
            )
        if mask_scope not in MASK_SCOPES:
            raise ConfigError(f'mask_scope is one of {MASK_SCOPES}, got {mask_scope!r}')
        if not 0 < mask_ratio < 1:
            raise ConfigError(f'mask_ratio must be in (0, 1), got {mask_ratio}')
        self.mask_ratio = mask_ratio
        self.mask_scope = mask_scope

    def mix(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Mixtures:
        """Chooses how a batch is mixed.

        Args:
            inputs: Shape (B, C, H, W), normalised, H and W multiples of the stride.
            data_samples: May bring ``mask_noise`` and ``valid_mask``.

        Raises:
            ConfigError: If size or noise do not fit.
        """
        grid = patch_grid((inputs.shape[2], inputs.shape[3]), (self.stride, self.stride))
        valid = torch.isfinite(inputs)
        stated = stack_valid(data_samples, inputs)
        if stated is not None:
            valid = valid & stated
        images = torch.where(valid, inputs, inputs.new_zeros(()))
        return Mixtures(images, valid, self._mask(len(inputs), grid, data_samples, inputs.device))

    def _mask(
        self,
        batch: int,
        grid: tuple[int, int],
        data_samples: Sequence[Any] | None,
        device: torch.device,
    ) -> Tensor:
        length = grid[0] * grid[1]
        exchanged = int(length * self.mask_ratio)
        if not exchanged:
            raise ConfigError(
                f'mask_ratio={self.mask_ratio} of the {grid[0]}x{grid[1]} cells of an image is '
                f'none: nothing would be mixed. The images need more cells of {self.stride} pixels'
            )
        count = 1 if self.mask_scope == 'batch' else (batch + 1) // 2
        found = packed(data_samples, 'mask_noise')
        if found is None:
            noise = torch.rand(count, length, device=device)
        else:
            for item in found[:count]:
                if item.ndim != 2 or item.shape[1] != length:
                    raise ConfigError(
                        f'a data sample brings mask_noise of shape {tuple(item.shape)}, but '
                        f'{grid[0]}x{grid[1]} cells need (1, {length}): set patch_size of '
                        f'mmrsfm.DrawMaskNoise to {self.stride}'
                    )
            noise = torch.stack([item[0] for item in found[:count]]).to(device)
        chosen = noise.argsort(dim=1)[:, :exchanged]
        mask = torch.zeros(count, length, dtype=torch.bool, device=device)
        mask = mask.scatter_(1, chosen, True).view(count, *grid)
        if self.mask_scope == 'pair':
            mask = torch.cat([mask, mask[: batch // 2].flip(0)])
        return mask

    def decode(self, mixtures: Mixtures) -> Tensor:
        """Encodes and decodes mixtures, (2B, L, decoder channels); see the decoder."""
        maps = self.backbone(mixtures.images, mixtures.mask)
        tokens = maps[-1].flatten(2).transpose(1, 2)
        return self.neck(tokens, mixtures.mask.flatten(1), mixtures.mask.shape[1:])

    def unmix(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Puts what comes from mask tokens back into the order of the images.

        Args:
            embedding: What the decoder made of B mixtures, (2B, L, D).
            mask: Shape (1, h, w) or (B, h, w), see :class:`Mixtures`.

        Returns:
            Shape (B, L, D).
        """
        first, second = embedding.chunk(2)
        return torch.where(mask.flatten(1)[..., None], first, second.flip(0))

    def _patches(self, mixtures: Mixtures) -> Tensor:
        return self.neck.predict(self.unmix(self.decode(mixtures), mixtures.mask))

    def decibels(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> Tensor | None:
        """Normalised images in dB, where the loss needs them; else ``None``."""
        if not self.recon_loss.needs_decibels:
            return None
        return self.data_preprocessor.denormalize(images, data_samples)

    def loss(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> dict[str, Tensor]:
        """Computes the loss.

        Args:
            inputs: See :meth:`mix`.
            data_samples: See :meth:`mix`.

        Returns:
            ``loss_recon``.
        """
        mixtures = self.mix(inputs, data_samples)
        decibels = self.decibels(mixtures.images, data_samples)
        pred = self._patches(mixtures)
        return {'loss_recon': self.recon_loss(pred, mixtures.images, decibels, mixtures.valid)}

    def extract_feat(self, inputs: Tensor) -> Any:
        """Encodes whole images; what the backbone returns for them."""
        return self.backbone(inputs)

    @torch.no_grad()
    def reconstruct(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """What the model makes of mixtures; in the units of the inputs.

        A model that predicts patches normalised by their own mean and variance (``norm_pix``) knows
        neither: for the picture they are taken from the image.

        Args:
            inputs: See :meth:`mix`.
            data_samples: See :meth:`mix`.

        Returns:
            For each band ``image`` (B, 1, H, W), NaN where there are no data; ``pred`` (B, 1, H,
            W), everywhere from mask tokens; ``mask`` (B, 1, H, W), bool, True: the mixture showed
            the partner there; ``weight`` (B, 1, H, W), of the loss.
        """
        mixtures = self.mix(inputs, data_samples)
        images, valid, mask = mixtures.images, mixtures.valid, mixtures.mask
        patch = (self.stride, self.stride)
        pred = self._patches(mixtures).float()
        if self.recon_loss.norm_pix:
            known = patchify(valid, patch)
            mean, deviation = patch_statistics(patchify(images.float(), patch), known)
            pred = pred * deviation + mean
        pred = unpatchify(pred, (mask.shape[1], mask.shape[2]), patch)
        decibels = self.decibels(images, data_samples)
        weight = self.recon_loss.weights(images, decibels, valid)
        hidden = mask.repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
        hidden = hidden[:, None].expand(len(images), -1, -1, -1)
        shown = images.masked_fill(~valid, torch.nan)
        return {
            name: dict(
                image=shown[:, [number]],
                pred=pred[:, [number]],
                mask=hidden,
                weight=weight[:, [number]],
            )
            for number, name in enumerate(self._band_names(images.shape[1]))
        }

    def _band_names(self, count: int) -> Sequence[str]:
        contract = getattr(self.data_preprocessor, 'contract', None)
        names = None if contract is None else contract.band_names
        return names or [f'band_{number + 1}' for number in range(count)]

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[Any] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """MMEngine's entry: ``'loss'``, ``'tensor'`` (:meth:`extract_feat`) or ``'predict'``."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def predict(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> list[Any]:
        """:meth:`reconstruct`, dealt out to the data samples.

        Returns:
            The data samples, each with ``reconstruction``: for each band ``image``, ``pred``,
            ``mask`` and ``weight`` of that sample, for :class:`mmrsfm.VisualizationHook`.
        """
        from mmpretrain.structures import DataSample

        found = self.reconstruct(inputs, data_samples)
        samples = list(data_samples or [DataSample() for _ in inputs])
        for number, sample in enumerate(samples):
            parts = {
                name: {key: value[number] for key, value in part.items()}
                for name, part in found.items()
            }
            sample.set_field(parts, 'reconstruction', dtype=dict)
        return samples


def _decoder_of(backbone: Any) -> dict[str, Any]:
    """What the decoder has to know of the encoder."""
    return dict(
        type='mmrsfm.MixMIMDecoder',
        img_size=backbone.img_size,
        in_chans=backbone.in_channels,
        embed_dim=backbone.num_features,
        encoder_stride=backbone.encoder_stride,
    )
