# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MP-MAE: from parts of an image to the whole of it and of other modalities of the same place.

Nedungadi et al., "MMEarth: Exploring Multi-Modal Pretext Tasks for Geospatial Representation
Learning", ECCV 2024, arXiv 2405.02771 (github.com/vishalned/MMEarth-train), on the masked
autoencoder of ConvNeXt V2 (Woo et al., CVPR 2023, arXiv 2301.00808). Written anew from a
description of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import mask_from_noise, patch_grid, patchify, unpatchify
from mmrsfm.models.heads.modality_targets import ModalityTarget, stack_targets
from mmrsfm.models.losses.masked_reconstruction_loss import patch_statistics
from mmrsfm.models.pretext.views import packed, stack_valid
from mmrsfm.registry import MODELS

DECODER_CALLS = ('once', 'per_modality')


@dataclass(frozen=True)
class MaskedImages:
    """A batch, and which patches of it are hidden.

    Attributes:
        images: Shape (B, C, H, W), 0 where there are no data.
        valid: Shape (B, C, H, W), bool, where there are data.
        mask: Shape (B, L), 1 for hidden patches, row by row.
        ids_masked: Shape (B, K), numbers of the hidden patches, rising.
        grid: Rows and columns of patches.
    """

    images: Tensor
    valid: Tensor
    mask: Tensor
    ids_masked: Tensor
    grid: tuple[int, int]


@MODELS.register_module()
class MPMAE(BaseSelfSupervisor):
    """Hides patches of an image, encodes the rest, and predicts any modalities of the place.

    Encoder (masked convolutions) - decoder - one linear predictor for each modality. Maps count
    where the image was hidden; classes and vectors are predicted from the mean over all patches.
    The decoder runs once for all modalities; the published code runs it once for each, with the
    same result.

    What is missing, in the image (NaN, or False in the data samples' ``valid_mask``) or in the
    targets, is left out of the losses, and no loss is NaN, whatever is missing; see
    :class:`mmrsfm.MultiPretextHead` for what the published code does. Missing pixels of the image
    are 0 to the encoder; a pixel without any band takes no part in it.

    Randomness: a data sample may bring ``mask_noise`` (1, L) (:class:`mmrsfm.DrawMaskNoise` with
    ``num_views=1`` and the patch size of the backbone); the patches with the smallest noise stay.
    Without it the noise is drawn here from torch's global generator.

    Names of parameters: ``backbone``, ``neck``, ``head``.

    Args:
        backbone: :class:`mmrsfm.ConvNeXtV2` whose only map is that of the last stage, e.g. with
            ``out_indices=(3,)``.
        head: :class:`mmrsfm.MultiPretextHead`; ``in_channels`` and ``patch_size`` are filled in.
        neck: :class:`mmrsfm.MPMAEDecoder`; ``in_channels`` is filled in.
        mask_ratio: Share of the patches that is hidden, in (0, 1); ``int(L * (1 - ratio))`` stay.
        decoder_calls: ``'once'``, or ``'per_modality'`` as the published code has it: slower, and
            the same numbers; to compare times.
        data_preprocessor: :class:`mmrsfm.MultiBandDataPreprocessor`.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        mask_ratio: float = 0.6,
        decoder_calls: str = 'once',
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        encoder: Any = backbone
        if not isinstance(backbone, nn.Module):
            encoder = MODELS.build(backbone)
        if getattr(encoder, 'pooled', False):
            raise ConfigError('MP-MAE needs the last map of the backbone: set out_indices=(3,)')
        decoder: Any = neck
        if not isinstance(neck, nn.Module):
            default = dict(type='mmrsfm.MPMAEDecoder', in_channels=encoder.out_channels[-1])
            decoder = MODELS.build({**default, **(neck or {})})
        if not isinstance(head, nn.Module):
            default = dict(
                type='mmrsfm.MultiPretextHead',
                in_channels=decoder.embed_dims,
                patch_size=encoder.patch_size,
            )
            head = MODELS.build({**default, **head})
        super().__init__(
            backbone=encoder,
            neck=decoder,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if self.head.patch_size != encoder.patch_size:
            raise ConfigError(
                f'the head predicts patches of {self.head.patch_size} pixels, the backbone hides '
                f'those of {encoder.patch_size}'
            )
        for target in self.targets.values():
            if target.source == 'inputs' and target.channels != encoder.in_channels:
                raise ConfigError(
                    f'target {target.name!r} is the image itself, and has {target.channels} '
                    f'channels, but the backbone takes {encoder.in_channels}'
                )
        if not 0 < mask_ratio < 1:
            raise ConfigError(f'mask_ratio must be in (0, 1), got {mask_ratio}')
        if decoder_calls not in DECODER_CALLS:
            raise ConfigError(f'decoder_calls is one of {DECODER_CALLS}, got {decoder_calls!r}')
        self.mask_ratio = mask_ratio
        self.decoder_calls = decoder_calls

    @property
    def targets(self) -> Mapping[str, ModalityTarget]:
        """What is predicted."""
        return self.head.targets  # type: ignore[no-any-return]

    def hide(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> MaskedImages:
        """Chooses the patches of a batch that are hidden.

        Args:
            inputs: Shape (B, C, H, W), normalised, H and W multiples of the patch.
            data_samples: May bring ``mask_noise`` and ``valid_mask``.

        Raises:
            ConfigError: If size or noise do not fit.
        """
        patch = self.backbone.patch_size
        grid = patch_grid((inputs.shape[2], inputs.shape[3]), (patch, patch))
        valid = torch.isfinite(inputs)
        stated = stack_valid(data_samples, inputs)
        if stated is not None:
            valid = valid & stated
        images = torch.where(valid, inputs, inputs.new_zeros(()))
        noise = self._noise(data_samples, len(inputs), grid, inputs.device)
        ids_keep, _, mask = mask_from_noise(noise, self.mask_ratio)
        count = mask.shape[1] - ids_keep.shape[1]
        if not ids_keep.shape[1]:
            raise ConfigError(
                f'mask_ratio={self.mask_ratio} leaves none of {grid[0]}x{grid[1]} patches visible: '
                'larger images, or a smaller ratio'
            )
        ids_masked = mask.argsort(dim=1, descending=True, stable=True)[:, :count]
        return MaskedImages(images, valid, mask, ids_masked, grid)

    def _noise(
        self,
        data_samples: Sequence[Any] | None,
        batch: int,
        grid: tuple[int, int],
        device: torch.device,
    ) -> Tensor:
        length = grid[0] * grid[1]
        found = packed(data_samples, 'mask_noise')
        if found is None:
            return torch.rand(batch, length, device=device)
        for item in found:
            if item.ndim != 2 or item.shape[1] != length:
                raise ConfigError(
                    f'a data sample brings mask_noise of shape {tuple(item.shape)}, but '
                    f'{grid[0]}x{grid[1]} patches need (1, {length}): set patch_size of '
                    f'mmrsfm.DrawMaskNoise to {self.backbone.patch_size}'
                )
        return torch.stack([item[0] for item in found]).to(device, torch.float32)

    def encode(self, masked: MaskedImages) -> Tensor:
        """The last map of the visible patches, (B, C, h, w), 0 where hidden."""
        return self.backbone(masked.images, masked.mask)[-1]  # type: ignore[no-any-return]

    def loss(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> dict[str, Tensor]:
        """Computes the losses.

        Args:
            inputs: See :meth:`hide`.
            data_samples: Each with ``targets``, from the names of modalities to tensors, see
                :class:`~mmrsfm.models.heads.modality_targets.ModalityTarget`; may also bring
                what :meth:`hide` takes.

        Returns:
            ``loss_<modality>``, which add up to the total, and for uncertainty weighting
            ``raw_<modality>``, what they were before they were weighted.
        """
        masked = self.hide(inputs, data_samples)
        targets = self._stacked(inputs, masked, data_samples)
        encoded = self.encode(masked)
        if self.decoder_calls == 'once':
            embedding = self.neck(encoded, masked.mask)
            return self.head.loss(embedding, masked.ids_masked, targets)  # type: ignore[no-any-return]
        predicted = {}
        for name in self.targets:
            embedding = self.neck(encoded, masked.mask)
            if self.targets[name].is_map:
                embedding = self.head.at(embedding, masked.ids_masked)
            predicted[name] = self.head.predict_one(name, embedding)
        return self.head.compare(predicted, masked.ids_masked, targets)  # type: ignore[no-any-return]

    def _stacked(
        self, inputs: Tensor, masked: MaskedImages, data_samples: Sequence[Any] | None
    ) -> dict[str, Tensor]:
        return stack_targets(self.targets, inputs, data_samples, masked.valid)

    def extract_feat(self, inputs: Tensor) -> Any:
        """Encodes whole images; what the backbone returns for them."""
        return self.backbone(inputs)

    @torch.no_grad()
    def reconstruct(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None
    ) -> dict[str, dict[str, Any]]:
        """What the model makes of the visible patches, in the units of the targets.

        A model that predicts patches normalised by their own mean and variance (``norm_pix``) knows
        neither: for the picture they are taken from the target.

        Args:
            inputs: See :meth:`hide`.
            data_samples: See :meth:`loss`; without ``targets`` all but the image itself is missing.

        Returns:
            For each modality ``image``, the target, missing where NaN (classes: -1), and ``pred``.
            Maps: (B, channels, H, W), of classes (B, 1, H, W) with ``classes``, their number, and
            ``mask`` (B, 1, H, W), bool, True where the image was hidden, and ``bands`` where the
            target has a ``picture``. Else (B, channels), or classes (B,).
        """
        masked = self.hide(inputs, data_samples)
        known = [sample for sample in data_samples or () if hasattr(sample, 'targets')]
        if known:
            targets = self._stacked(inputs, masked, data_samples)
        else:
            targets = self._without_targets(inputs, masked)
        predicted = self.head.predict(self.neck(self.encode(masked), masked.mask))
        patch = self.backbone.patch_size
        hidden = masked.mask.view(len(inputs), 1, *masked.grid).bool()
        hidden = hidden.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        found: dict[str, dict[str, Any]] = {}
        for name, target in self.targets.items():
            image, pred = targets[name], predicted[name].float()
            if not target.is_map:
                pred = pred.argmax(-1) if target.classes else pred
                found[name] = dict(image=image, pred=pred)
                continue
            if target.norm_pix:
                cells = patchify(image.float(), (patch, patch))
                mean, deviation = patch_statistics(cells, torch.isfinite(cells))
                pred = pred * deviation + mean
            pred = unpatchify(pred, masked.grid, (patch, patch))
            if target.classes:
                image, pred = image[:, None], pred.argmax(1, keepdim=True)
            found[name] = dict(image=image, pred=pred, mask=hidden)
            if target.classes:
                found[name]['classes'] = target.classes
            if target.picture is not None:
                found[name]['bands'] = target.picture
        return found

    def _without_targets(self, inputs: Tensor, masked: MaskedImages) -> dict[str, Tensor]:
        size = (inputs.shape[2], inputs.shape[3])
        own = {n: t for n, t in self.targets.items() if t.source == 'inputs'}
        found = stack_targets(own, inputs, None, masked.valid)
        for name, target in self.targets.items():
            if name not in own:
                empty = target.missing(size).to(inputs.device)
                found[name] = empty.expand(len(inputs), *empty.shape)
        return found

    def random_targets(
        self, size: Sequence[int], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Targets of noise for one image, for measuring times without data.

        Args:
            size: Height and width in pixels.
            generator: A generator of the CPU.

        Returns:
            For each modality, as a data sample's ``targets``.
        """
        found = {}
        for name, target in self.targets.items():
            shape = target.shape(size)
            if target.classes:
                found[name] = torch.randint(target.classes, shape, generator=generator)
            elif target.source == 'targets':
                found[name] = torch.randn(shape, generator=generator)
        return found

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
            The data samples, each with ``reconstruction``, the maps, for
            :class:`mmrsfm.ReconstructionVisualizer`, and ``pred_values``, the classes and vectors.
        """
        from mmpretrain.structures import DataSample

        found = self.reconstruct(inputs, data_samples)
        samples = list(data_samples or [DataSample() for _ in inputs])
        for number, sample in enumerate(samples):
            parts: dict[bool, dict[str, Any]] = {True: {}, False: {}}
            for name, part in found.items():
                parts[self.targets[name].is_map][name] = {
                    key: value[number] if isinstance(value, Tensor) else value
                    for key, value in part.items()
                }
            sample.set_field(parts[True], 'reconstruction', dtype=dict)
            sample.set_field(parts[False], 'pred_values', dtype=dict)
        return samples
