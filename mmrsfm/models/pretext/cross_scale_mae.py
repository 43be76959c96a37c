# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cross-Scale MAE: masked autoencoding of an image and an enlarged part of it, tied together.

Tang, Cozma, Georgiou, Qi, "Cross-Scale MAE: A Tale of Multi-Scale Exploitation in Remote
Sensing", NeurIPS 2023, arXiv 2401.15855. Written anew from the published maths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.utils import is_seq_of
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import mask_from_noise, patch_grid
from mmrsfm.models.losses.masked_reconstruction_loss import POINTWISE, pointwise_loss
from mmrsfm.models.pretext.scale_crop import draw_rectangle
from mmrsfm.models.pretext.views import MaskedViews, enlarged_views, packed, stack_valid
from mmrsfm.registry import MODELS

TERMS = ('recon_orig', 'recon_crop', 'cross_pred', 'contrastive', 'latent')
VARIANTS: dict[str, tuple[str, ...]] = {
    'Baseline': ('recon_orig',),
    'MsLd': ('recon_orig', 'recon_crop'),
    'MsLdCd': ('recon_orig', 'recon_crop', 'cross_pred'),
    'MsLdCeCd': ('recon_orig', 'recon_crop', 'cross_pred', 'contrastive'),
    'MsLdLe': ('recon_orig', 'recon_crop', 'latent'),
    'MsLdLeCd': ('recon_orig', 'recon_crop', 'cross_pred', 'latent'),
}


@MODELS.register_module()
class CrossScaleMAE(BaseSelfSupervisor):
    """Two views through one masked autoencoder, and losses within and between them.

    View 0 is the image, view 1 a random rectangle of it, enlarged to the same size. Both are
    masked, encoded (visible patches only) and decoded in one batch; that gives the numbers of two
    separate passes, since nothing before the predictor depends on other samples. The terms, each
    logged on its own as ``loss_<term>``:

    * ``recon_orig``, ``recon_crop``: reconstruction of the masked patches of each view;
    * ``cross_pred``: the predictor maps the decoder's embedding of the crop to that of the image,
      patch by patch; no stop-gradient;
    * ``contrastive``: between the mean visible patch tokens of the encoder, see
      :class:`mmrsfm.models.losses.nt_xent_loss.NTXentLoss`;
    * ``latent``: direct regression between the two encoder outputs, token by token.

    The total is the weighted sum of the terms. With ``recon_reduction='mean'`` the two
    reconstruction terms are halved.

    Randomness: a data sample may bring ``mask_noise``, shape (V, L), row 0 for the image and row 1
    for the crop, and ``scale_crop``, (top, left, height, width). Without them they are drawn here
    from torch's global generator: the rectangle first, then the noise of each view. A data
    sample with a ``valid_mask``, shape (C, H, W), leaves the other pixels out of the
    reconstruction.

    Parameters that get no gradient (the last normalisation of the encoder unless it is used, and
    the position tables) are frozen, so that plain DistributedDataParallel works; a config may
    still say ``find_unused_parameters=True``.

    Args:
        backbone: :class:`~mmrsfm.models.backbones.cross_scale_vit.CrossScaleViT`.
        neck: :class:`~mmrsfm.models.necks.cross_scale_mae_decoder.CrossScaleMAEDecoder`.
        terms: A published variant ('Baseline', 'MsLd', 'MsLdCd', 'MsLdCeCd', 'MsLdLe',
            'MsLdLeCd'), or a list of the terms above. The paper's model is 'MsLdCeCd'.
        loss_weights: Weight of each term; those not named weigh 1.
        mask_ratio: Share of the patches that is removed.
        consistent_mask: Whether both views are masked alike.
        scale_range: Smallest and largest share of the image's area that is enlarged.
        crop_mode: ``'batch'``, as published: one rectangle for all images of a batch (of this
            rank; where the samples bring one, the first sample's); ``'sample'``: one for each.
        recon_loss: :class:`mmrsfm.models.losses.MaskedReconstructionLoss`.
        recon_reduction: ``'sum'`` or ``'mean'`` of the two reconstruction terms.
        predictor: :class:`mmrsfm.models.necks.PatchPredictor`; channels and number of patches
            are filled in.
        predictor_norm: Short for ``predictor=dict(norm=...)``: ``'patch_bn'``, as published,
            ``'bn'`` or ``'ln'``.
        loss_cd: Kind of ``cross_pred``, one of mse, l2, mae, l1, bce; ``None``: as the
            reconstruction, or mse where that is a kind for images.
        loss_e: Kind of ``latent``, likewise.
        contrastive_loss: :class:`mmrsfm.models.losses.NTXentLoss`.
        use_encoder_norm: Whether the encoder's output is normalised by its last layer norm. The
            published code computes and discards it, so released weights need False.
        data_preprocessor: Usually :class:`mmrsfm.MultiBandDataPreprocessor`.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        terms: str | Sequence[str] = 'MsLdCeCd',
        loss_weights: dict[str, float] | None = None,
        mask_ratio: float = 0.75,
        consistent_mask: bool = False,
        scale_range: tuple[float, float] = (0.25, 0.75),
        crop_mode: str = 'batch',
        recon_loss: dict | nn.Module | None = None,
        recon_reduction: str = 'sum',
        predictor: dict | None = None,
        predictor_norm: str | None = None,
        loss_cd: str | None = None,
        loss_e: str | None = None,
        contrastive_loss: dict | nn.Module | None = None,
        use_encoder_norm: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone, neck=neck, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        self.terms = _resolve_terms(terms)
        self.loss_weights = _resolve_weights(loss_weights, self.terms, recon_reduction)
        if crop_mode not in ('batch', 'sample'):
            raise ConfigError(f"crop_mode must be 'batch' or 'sample', got {crop_mode!r}")
        self.patch_size: tuple[int, int] = self.backbone.patch_size
        self.num_views = 1 if self.terms == ('recon_orig',) else 2
        self.mask_ratio = mask_ratio
        self.consistent_mask = consistent_mask
        self.scale_range = scale_range
        self.crop_mode = crop_mode
        self.use_encoder_norm = use_encoder_norm
        self.recon_loss = _built(recon_loss, 'MaskedReconstructionLoss', patch_size=self.patch_size)
        kind = str(self.recon_loss.kind)
        if kind not in POINTWISE:
            kind = 'mse'
        self.loss_cd = _pointwise_kind('loss_cd', loss_cd or kind)
        self.loss_e = _pointwise_kind('loss_e', loss_e or kind)
        grid = self.backbone.patch_resolution
        num_patches = grid[0] * grid[1]
        if not 0 <= mask_ratio < 1 or int(num_patches * (1 - mask_ratio)) < 1:
            raise ConfigError(
                f'mask_ratio={mask_ratio} leaves no visible patch out of {num_patches}'
            )
        if self.backbone.cls_token is None:
            raise ConfigError('Cross-Scale MAE needs a backbone with a class token')
        if 'cross_pred' in self.terms:
            settings = dict(predictor or {})
            if predictor_norm is not None:
                settings['norm'] = predictor_norm
            self.predictor = _built(
                settings,
                'PatchPredictor',
                channels=self.neck.decoder_embed_dim,
                num_patches=num_patches,
            )
        if 'contrastive' in self.terms:
            self.contrastive_loss = _built(contrastive_loss, 'NTXentLoss')
        self._freeze_unused()

    def _freeze_unused(self) -> None:
        """Freezes what this algorithm never uses, so that no gradient is waited for."""
        unused = ['ln2', 'pyramid']
        if not self.use_encoder_norm:
            unused.append('ln1')
        elif not self.backbone.final_norm:
            raise ConfigError('use_encoder_norm=True needs a backbone with final_norm=True')
        for name in unused:
            module = getattr(self.backbone, name, None)
            if module is not None:
                module.requires_grad_(False)

    def make_views(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[Any] | None = None
    ) -> MaskedViews:
        """Makes the views of a batch, and their masks.

        Args:
            inputs: Shape (B, C, H, W), H and W multiples of the patch; or two such tensors,
                images and their partners, for a data set of pairs: nothing is cropped then.
            data_samples: May bring ``mask_noise``, ``scale_crop`` and ``valid_mask``.
        """
        pair = None
        if not isinstance(inputs, Tensor):
            if not is_seq_of(inputs, Tensor) or len(inputs) != 2 or self.num_views != 2:
                raise ConfigError(
                    'inputs must be one batch (B, C, H, W), or two of them for paired views'
                )
            inputs, pair = inputs
        batch, _, height, width = inputs.shape
        grid = patch_grid((height, width), self.patch_size)
        valid = stack_valid(data_samples, inputs)
        if valid is not None:
            inputs = inputs.masked_fill(~valid, 0.0)
        images = inputs
        if pair is not None:
            images = torch.cat([inputs, pair])
            valid = None if valid is None else torch.cat([valid, torch.ones_like(valid)])
        elif self.num_views == 2:
            images, valid = enlarged_views(
                inputs, valid, self._rectangles(data_samples, batch, (height, width))
            )
        noise = self._noise(data_samples, batch, grid, inputs.device)
        ids_keep, ids_restore, mask = mask_from_noise(noise.flatten(0, 1), self.mask_ratio)
        return MaskedViews(images, valid, ids_keep, ids_restore, mask, grid, self.num_views)

    def _rectangles(
        self, data_samples: Sequence[Any] | None, batch: int, size: tuple[int, int]
    ) -> list[Sequence[int]]:
        found = packed(data_samples, 'scale_crop')
        count = batch if self.crop_mode == 'sample' else 1
        if found is not None:
            return [tuple(int(n) for n in rectangle) for rectangle in found[:count]]
        return [draw_rectangle(size, self.scale_range) for _ in range(count)]

    def _noise(
        self,
        data_samples: Sequence[Any] | None,
        batch: int,
        grid: tuple[int, int],
        device: torch.device,
    ) -> Tensor:
        """Noise of shape (V, B, L)."""
        length = grid[0] * grid[1]
        draws = 1 if self.consistent_mask else self.num_views
        found = packed(data_samples, 'mask_noise')
        if found is None:
            noise = torch.stack([torch.rand(batch, length, device=device) for _ in range(draws)])
        else:
            for item in found:
                if item.ndim != 2 or item.shape[0] < draws or item.shape[1] != length:
                    raise ConfigError(
                        f'a data sample brings mask_noise of shape {tuple(item.shape)}, but '
                        f'{draws} view(s) of {grid[0]}x{grid[1]} = {length} patches need '
                        f"({draws}, {length}): give the transform that draws the noise the model's "
                        'img_size and patch_size'
                    )
            noise = torch.stack([item[:draws].to(device, torch.float32) for item in found], dim=1)
        return noise.expand(self.num_views, -1, -1)

    def encode(self, views: MaskedViews) -> Tensor:
        """Encodes the visible patches of all views, (V * B, 1 + K, D), class token first."""
        return self.backbone.encode_visible(
            views.images, views.ids_keep, apply_norm=self.use_encoder_norm
        )

    def decode(self, latent: Tensor, views: MaskedViews) -> Tensor:
        """Decodes all views, (V * B, 1 + L, decoder channels), after the last normalisation."""
        return self.neck(latent, views.ids_restore, views.grid)

    def loss(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[Any] | None = None
    ) -> dict[str, Tensor]:
        """Computes the terms of the loss.

        Args:
            inputs: See :meth:`make_views`.
            data_samples: See :meth:`make_views`.

        Returns:
            ``loss_<term>`` for each term, weighted: they add up to the total.
        """
        views = self.make_views(inputs, data_samples)
        latent = self.encode(views)
        return self.losses_of(views, latent, self.decode(latent, views))

    def losses_of(self, views: MaskedViews, latent: Tensor, embedding: Tensor) -> dict[str, Tensor]:
        """Computes the terms from the outputs of :meth:`encode` and :meth:`decode`.

        Returns:
            ``loss_<term>`` for each term, weighted.
        """
        losses: dict[str, Tensor] = {}
        pred = views.split(self.neck.predict(embedding))
        for number, term in enumerate(('recon_orig', 'recon_crop')[: self.num_views]):
            if term in self.terms:
                view = views.view(number)
                losses[term] = self.recon_loss(pred[number], view.images, view.mask, view.valid)
        if 'cross_pred' in self.terms:
            target, source = views.split(embedding[:, 1:])
            losses['cross_pred'] = pointwise_loss(self.predictor(source), target, self.loss_cd)
        if 'contrastive' in self.terms:
            losses['contrastive'] = self.contrastive_loss(*views.split(latent[:, 1:].mean(1)))
        if 'latent' in self.terms:
            target, source = views.split(latent)
            losses['latent'] = pointwise_loss(source, target, self.loss_e)
        return {f'loss_{term}': losses[term] * self.loss_weights[term] for term in self.terms}

    @torch.no_grad()
    def reconstruct(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[Any] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """What the model makes of the visible patches; in the units of the inputs.

        Args:
            inputs: See :meth:`make_views`.
            data_samples: See :meth:`make_views`.

        Returns:
            For ``image`` and, with two views, ``crop``: ``image`` (B, C, H, W), NaN where there are
            no data; ``pred`` (B, C, H, W), everywhere (see
            :meth:`mmrsfm.models.losses.MaskedReconstructionLoss.to_images`); ``mask`` (B, 1, H, W),
            bool, True: hidden.
        """
        views = self.make_views(inputs, data_samples)
        pred = views.split(self.neck.predict(self.decode(self.encode(views), views)))
        loss: Any = self.recon_loss
        found = {}
        for number, name in enumerate(('image', 'crop')[: self.num_views]):
            view = views.view(number)
            hidden = view.mask.view(-1, 1, *view.grid).bool()
            for axis, size in zip((2, 3), self.patch_size, strict=True):
                hidden = hidden.repeat_interleave(size, axis)
            shown = view.images.float()
            if view.valid is not None:
                shown = shown.masked_fill(~view.valid, torch.nan)
            whole = loss.to_images(pred[number], view.images, view.grid, view.valid)
            found[name] = dict(image=shown, pred=whole, mask=hidden)
        return found

    def forward(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: Sequence[Any] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """MMEngine's entry: ``'loss'``, ``'tensor'`` (the backbone's) or ``'predict'``."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[Any] | None = None
    ) -> list[Any]:
        """:meth:`reconstruct`, dealt out to the data samples.

        Returns:
            The data samples, each with ``reconstruction``: ``image``, ``pred`` and ``mask`` of that
            sample for each view, for :class:`mmrsfm.ReconstructionVisualizer`.
        """
        from mmpretrain.structures import DataSample

        found = self.reconstruct(inputs, data_samples)
        count = len(found['image']['image'])
        samples = list(data_samples or [DataSample() for _ in range(count)])
        for number, sample in enumerate(samples):
            parts = {
                name: {key: value[number] for key, value in part.items()}
                for name, part in found.items()
            }
            sample.set_field(parts, 'reconstruction', dtype=dict)
        return samples


def _built(module: dict | nn.Module | None, default_type: str, **defaults: Any) -> nn.Module:
    if isinstance(module, nn.Module):
        return module
    config = {'type': f'mmrsfm.{default_type}', **defaults, **(module or {})}
    return MODELS.build(config)


def _pointwise_kind(name: str, kind: str) -> str:
    if kind not in POINTWISE:
        raise ConfigError(f'{name}={kind!r} is not one of {sorted(POINTWISE)}')
    return kind


def _resolve_terms(terms: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(terms, str):
        if terms not in VARIANTS:
            raise ConfigError(f'variant {terms!r} is not one of {sorted(VARIANTS)}')
        return VARIANTS[terms]
    unknown = set(terms) - set(TERMS)
    if unknown or not terms:
        raise ConfigError(f'terms {list(terms)} must be some of {TERMS}')
    return tuple(term for term in TERMS if term in terms)


def _resolve_weights(
    given: dict[str, float] | None, terms: tuple[str, ...], recon_reduction: str
) -> dict[str, float]:
    if recon_reduction not in ('sum', 'mean'):
        raise ConfigError(f"recon_reduction must be 'sum' or 'mean', got {recon_reduction!r}")
    unknown = set(given or {}) - set(terms)
    if unknown:
        raise ConfigError(f'loss_weights names {sorted(unknown)}, the terms are {list(terms)}')
    weights = {**dict.fromkeys(terms, 1.0), **(given or {})}
    if recon_reduction == 'mean' and 'recon_crop' in terms and 'recon_orig' in terms:
        weights['recon_orig'] *= 0.5
        weights['recon_crop'] *= 0.5
    return weights
