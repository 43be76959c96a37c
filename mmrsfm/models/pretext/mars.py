# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MaRS: masked and contrastive pretraining on images of several modalities of one place.

"MaRS", AAAI 40(14):11685-11693, 2026 (github.com/WanderRainy/MaRS). Written anew from a description
of the published code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from mmengine.model import ModuleDict
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.modalities import (
    ModalityInput,
    channel_columns,
    check_dropout,
    check_modalities,
    drop_modality,
    split_modalities,
)
from mmrsfm.layers.patches import patch_grid
from mmrsfm.models.pretext.mars_encoders import MaRSEncoders
from mmrsfm.models.pretext.mars_terms import TEACHER_AXES, masked_pixel_loss, teacher_loss
from mmrsfm.models.pretext.views import packed, stack_valid
from mmrsfm.registry import MODELS


@dataclass(frozen=True)
class MaskedModalities:
    """What :meth:`MaRS.encode` makes of a batch. Maps are (B, C, h, w), of stride 32.

    Attributes:
        targets: The modalities as they are in the data.
        inputs: The same, less what modality dropout took away.
        mask: Shape (B, rows, columns), bool: the hidden units.
        encoded: Maps of the encoders.
        mixed: Maps after the neck.
        valid: For each modality the tokens (B, h * w) that have data; ``None``: all.
    """

    targets: dict[str, ModalityInput]
    inputs: dict[str, ModalityInput]
    mask: Tensor
    encoded: dict[str, Tensor]
    mixed: dict[str, Tensor]
    valid: dict[str, Tensor | None]


@MODELS.register_module()
class MaRS(BaseSelfSupervisor):
    """An encoder a modality, attention across them, and losses within and between them.

    Each sample is masked once, for all modalities alike. The encoders' maps pass through the neck,
    where the modalities see each other; of its output a light head for each modality paints the
    image. The terms, each weighted and logged on its own:

    * ``mim_<modality>``: absolute error of the masked pixels that have data;
    * ``teacher``: negative cosine to the tokens of a frozen encoder (published: of ImageNet);
    * those of ``contrast`` between each pair of modalities, averaged over the pairs:
      ``cgcl_patch``, ``cgcl_image``, ``cgcl_patch_image`` (or ``clip``).

    One modality is a case like any other: no contrast then. Optical-only pretraining is this.

    **What is missing** is NaN in the inputs, or False in the data samples' ``valid_mask`` (C, H,
    W), and becomes 0, the mean of its band. Pixels without data are never a target; cells of 32
    pixels less than half of which have data are attended to by no token, and take no part in the
    contrast and the teacher's term; nor does a sample in which one of the two is missing. A
    modality that nobody has leaves its terms 0, and every parameter with a gradient (of 0), so
    that plain DistributedDataParallel works. With nothing missing, the numbers are those of pairs.

    Randomness: a data sample may bring ``mask_noise`` (V, L), of which the first row decides, and
    ``modality_noise``, one number in [0, 1) (see :class:`mmrsfm.DrawMaskNoise`). Without them they
    are drawn here from torch's global generator, the mask first.

    Faithful to the published code, or not, where it matters:

    * ``mask_mode``: with ``'reference_int'`` nothing is hidden, see
      :meth:`mmrsfm.SwinV2.forward`. Default: ``'simmim'``, what the paper means. Files of either
      kind look alike.
    * ``teacher_axis='token'``, the default, is as published: for each channel of an image, the
      cosine over its tokens. It is kept because nothing says that another was meant; ``'channel'``
      compares token by token, as distillation usually does.
    * The teacher sees the masked image, with a mask token of its own that nobody trains, as
      published; ``teacher_masked=False`` shows it the whole image.
    * The teacher is always in evaluation mode; the published one keeps its stochastic depth.
    * There are no classifiers that nothing uses, and no parameter without a gradient.
    * Those of the neck and of the contrast: their own arguments.

    Names of parameters: ``backbone.branches.<modality>``, ``teacher``, ``neck``,
    ``heads.<modality>``, ``contrast``; in raw checkpoints ``encoder_<modality>``,
    ``teacher_encoder``, ``alternating_attn``, ``decoder_<modality>`` and ``contrast_temp``.

    Args:
        modalities: Name of each modality, in the order of the channels -> number of channels.
        backbone: Config of :class:`mmrsfm.SwinV2`, for all modalities; or one for each, by name.
            What pretraining needs of it is filled in.
        neck: Config of :class:`mmrsfm.MetaModalityAttention`; ``None``: the encoders' maps as
            they are.
        head: Config of :class:`mmrsfm.PixelShuffleHead`.
        teacher: What differs from the backbone in the teacher, above all its ``init_cfg``;
            ``None``: no teacher.
        contrast: Config of :class:`mmrsfm.CrossGranularityContrastiveLoss` (or
            :class:`mmrsfm.TokenCLIPLoss`); ``None``: no contrast.
        mask_unit: Side in pixels of what is hidden or not, a multiple of the patch; images are made
            of whole units.
        mask_ratio: Share of the units that is hidden, rounded up.
        mask_mode: ``'simmim'`` or ``'reference_int'``.
        teacher_modality: Which modality the teacher sees; ``None``: the first.
        teacher_axis: ``'token'`` or ``'channel'``.
        teacher_masked: Whether the teacher sees the masked image.
        modality_dropout: Probability, while training, that a sample loses one of its modalities,
            each as likely; or name -> probability of losing that one. The lost one is hidden from
            the encoders, the neck and the contrast, but remains to be reconstructed, from the
            others. (:class:`mmrsfm.DropModality`, in the pipeline, takes away the target as well.)
        min_valid: Share of the pixels of a cell that must have data for its token to count.
        loss_weights: Weight of ``teacher``, ``contrast`` and each ``mim_<modality>``; those not
            named weigh 1.
        data_preprocessor: Usually :class:`mmrsfm.MultiBandDataPreprocessor`.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        backbone: Mapping[str, Any],
        neck: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        teacher: Mapping[str, Any] | None = None,
        contrast: Mapping[str, Any] | None = None,
        mask_unit: int = 32,
        mask_ratio: float = 0.6,
        mask_mode: str = 'simmim',
        teacher_modality: str | None = None,
        teacher_axis: str = 'token',
        teacher_masked: bool = True,
        modality_dropout: float | Mapping[str, float] = 0.0,
        min_valid: float = 0.5,
        loss_weights: Mapping[str, float] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        names = check_modalities(modalities)
        encoders = MaRSEncoders(names, backbone)
        channels, stride, patch = encoders.channels, encoders.stride, encoders.patch_size
        super().__init__(
            backbone=encoders,
            neck=None if neck is None else _built(neck, 'MetaModalityAttention', channels=channels),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.modalities = names
        self.stride, self.patch_size = stride, patch
        self.heads = ModuleDict(
            {
                name: _built(
                    head or {},
                    'PixelShuffleHead',
                    in_channels=channels,
                    out_channels=count,
                    stride=stride,
                )
                for name, count in names.items()
            }
        )
        self.teacher_modality = teacher_modality or next(iter(names))
        if self.teacher_modality not in names:
            raise ConfigError(f'teacher_modality={teacher_modality!r} is not one of {list(names)}')
        self.teacher: nn.Module | None = None
        if teacher is not None:
            guide: Any = encoders.another(self.teacher_modality, teacher)
            shape = (guide.out_channels[-1], guide.out_strides[-1])
            if shape != (channels, stride):
                raise ConfigError(
                    f'the maps of the teacher have {shape[0]} channels and the stride {shape[1]}, '
                    f'those of the encoders {channels} and {stride}: they must be alike'
                )
            self.teacher = guide.requires_grad_(False)
        columns = channel_columns(names)
        self.input_columns = {f'backbone.branches.{name}': own for name, own in columns.items()}
        self.input_columns['teacher'] = columns[self.teacher_modality]
        self.contrast: nn.Module | None = None
        if contrast is not None:
            if len(names) < 2:
                raise ConfigError('contrast needs two modalities or more: set contrast=None')
            self.contrast = _built(contrast, 'CrossGranularityContrastiveLoss')
        if mask_unit < 1 or mask_unit % patch or not 0 <= mask_ratio < 1:
            raise ConfigError(
                f'mask_unit must be a multiple of the patch of {patch} pixels and mask_ratio in '
                f'[0, 1), got {mask_unit} and {mask_ratio}'
            )
        if mask_mode not in ('simmim', 'reference_int'):
            raise ConfigError(f"mask_mode is 'simmim' or 'reference_int', got {mask_mode!r}")
        if teacher_axis not in TEACHER_AXES:
            raise ConfigError(f'teacher_axis is one of {TEACHER_AXES}, got {teacher_axis!r}')
        if not 0 < min_valid <= 1:
            raise ConfigError(f'min_valid must be in (0, 1], got {min_valid}')
        self.mask_unit = mask_unit
        self.mask_ratio = mask_ratio
        self.mask_mode = mask_mode
        self.teacher_axis = teacher_axis
        self.teacher_masked = teacher_masked
        self.min_valid = min_valid
        self.modality_dropout = check_dropout(modality_dropout, names)
        self.loss_weights = self._resolve_weights(loss_weights)
        self.train(self.training)

    def _resolve_weights(self, given: Mapping[str, float] | None) -> dict[str, float]:
        terms = [f'mim_{name}' for name in self.modalities]
        terms += ['teacher'] if self.teacher is not None else []
        terms += ['contrast'] if self.contrast is not None else []
        unknown = set(given or {}) - set(terms)
        if unknown:
            raise ConfigError(f'loss_weights names {sorted(unknown)}, the terms are {terms}')
        return {**dict.fromkeys(terms, 1.0), **(given or {})}

    def train(self, mode: bool = True) -> MaRS:
        """Switches the mode; the teacher stays in evaluation mode."""
        super().train(mode)
        teacher = getattr(self, 'teacher', None)
        if teacher is not None:
            teacher.train(False)
        return self

    def split(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None
    ) -> dict[str, ModalityInput]:
        """Takes a batch apart; see :func:`mmrsfm.layers.modalities.split_modalities`.

        Args:
            inputs: Shape (B, C, H, W), C the sum of all channels, NaN where there are no data.
            data_samples: May bring ``valid_mask``.
        """
        return split_modalities(inputs, self.modalities, stack_valid(data_samples, inputs))

    def make_mask(
        self,
        batch: int,
        size: tuple[int, int],
        data_samples: Sequence[Any] | None = None,
        device: torch.device | str = 'cpu',
    ) -> Tensor:
        """Chooses the units to hide: those with the largest noise.

        Args:
            batch: Number of images B.
            size: Height and width of the images in pixels.
            data_samples: May bring ``mask_noise``.
            device: Of the mask.

        Returns:
            Shape (B, rows, columns), bool, True: hidden.
        """
        rows, columns = patch_grid(size, (self.mask_unit, self.mask_unit))
        length = rows * columns
        found = packed(data_samples, 'mask_noise')
        if found is None:
            noise = torch.rand(batch, length, device=device)
        else:
            for item in found:
                if item.ndim != 2 or item.shape[1] != length:
                    raise ConfigError(
                        f'a data sample brings mask_noise of shape {tuple(item.shape)}, but '
                        f'{rows}x{columns} units of {self.mask_unit} pixels need (1, {length}): '
                        'set patch_size of mmrsfm.DrawMaskNoise to mask_unit'
                    )
            noise = torch.stack([item[0] for item in found]).to(device)
        order = noise.argsort(dim=1)
        visible = order[:, : length - math.ceil(self.mask_ratio * length)]
        mask = torch.ones(batch, length, dtype=torch.bool, device=device)
        return mask.scatter_(1, visible, False).view(batch, rows, columns)

    def encode(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> MaskedModalities:
        """Masks and encodes a batch, and mixes the modalities.

        Args:
            inputs: See :meth:`split`; H and W whole units and multiples of the stride.
            data_samples: May bring ``valid_mask``, ``mask_noise`` and ``modality_noise``.
        """
        targets = self.split(inputs, data_samples)
        size = (inputs.shape[2], inputs.shape[3])
        grid = patch_grid(size, (self.stride, self.stride))
        mask = self.make_mask(len(inputs), size, data_samples, inputs.device)
        seen = targets
        if self.training and self.modality_dropout and len(targets) > 1:
            draw = packed(data_samples, 'modality_noise')
            draws = torch.rand(len(inputs)) if draw is None else torch.stack(draw).flatten()
            seen = drop_modality(targets, self.modality_dropout, draws)
        patches = _enlarged(mask, self.mask_unit // self.patch_size)
        encoded = {
            name: self.backbone.branches[name](part.image, patches, self.mask_mode)[-1]
            for name, part in seen.items()
        }
        valid = {name: part.cells(grid, self.min_valid) for name, part in seen.items()}
        mixed = encoded
        if self.neck is not None:
            maps = self.neck(list(encoded.values()), list(valid.values()))
            mixed = dict(zip(encoded, maps, strict=True))
        return MaskedModalities(targets, seen, mask, encoded, mixed, valid)

    def teach(self, batch: MaskedModalities) -> Tensor:
        """The teacher's map (B, C, h, w) of what it sees of a batch, without gradients."""
        if self.teacher is None:
            raise ConfigError('there is no teacher')
        image, mask = batch.inputs[self.teacher_modality].image, None
        if self.teacher_masked:
            mask = _enlarged(batch.mask, self.mask_unit // self.patch_size)
        with torch.no_grad():
            return self.teacher(image, mask, self.mask_mode)[-1]

    def loss(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> dict[str, Tensor]:
        """Computes the terms of the loss.

        Args:
            inputs: See :meth:`encode`.
            data_samples: See :meth:`encode`.

        Returns:
            ``loss_<term>`` for each term, weighted: they add up to the total.
        """
        batch = self.encode(inputs, data_samples)
        terms: dict[str, Tensor] = {}
        hidden = _enlarged(batch.mask, self.mask_unit)[:, None]
        for name, target in batch.targets.items():
            counts = hidden if target.valid is None else hidden & target.valid
            pred = self.heads[name](batch.mixed[name])
            terms[f'mim_{name}'] = masked_pixel_loss(pred, target.image, counts)
        if self.teacher is not None:
            name = self.teacher_modality
            terms['teacher'] = teacher_loss(
                _tokens(batch.mixed[name]),
                _tokens(self.teach(batch)),
                batch.valid[name],
                self.teacher_axis,
            )
        losses = {f'loss_{term}': self.loss_weights[term] * loss for term, loss in terms.items()}
        return {**losses, **self._contrast(batch)}

    def _contrast(self, batch: MaskedModalities) -> dict[str, Tensor]:
        if self.contrast is None:
            return {}
        pairs = list(combinations(self.modalities, 2))
        losses: dict[str, Tensor] = {}
        for one, other in pairs:
            valid = _both(batch.valid[one], batch.valid[other])
            found = self.contrast(_tokens(batch.mixed[one]), _tokens(batch.mixed[other]), valid)
            for term, loss in found.items():
                weighted = loss * (self.loss_weights['contrast'] / len(pairs))
                losses[f'loss_{term}'] = losses.get(f'loss_{term}', 0) + weighted
        return losses

    @torch.no_grad()
    def reconstruct(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """What the model makes of the masked images; in the units of the inputs.

        Args:
            inputs: See :meth:`encode`.
            data_samples: See :meth:`encode`.

        Returns:
            For each modality ``image`` (B, C, H, W), NaN where there are no data, ``pred`` (B, C,
            H, W) everywhere, and ``mask`` (B, 1, H, W), bool, True: hidden.
        """
        batch = self.encode(inputs, data_samples)
        hidden = _enlarged(batch.mask, self.mask_unit)[:, None]
        result = {}
        for name, target in batch.targets.items():
            image = target.image
            if target.valid is not None:
                image = image.masked_fill(~target.valid, math.nan)
            pred = self.heads[name](batch.mixed[name]).float()
            result[name] = dict(image=image, pred=pred, mask=hidden)
        return result

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
        """:meth:`reconstruct` and :meth:`embed`, dealt out to the data samples.

        Returns:
            The data samples, each with ``reconstruction``: for each modality ``image``, ``pred``
            and ``mask`` of that sample, for :class:`mmrsfm.VisualizationHook`; and ``features``,
            for each modality a vector, for :class:`mmrsfm.CrossModalRetrievalMetric`.
        """
        from mmpretrain.structures import DataSample

        found = self.reconstruct(inputs, data_samples)
        vectors = self.embed(inputs, data_samples)
        samples = list(data_samples or [DataSample() for _ in inputs])
        for number, sample in enumerate(samples):
            parts = {
                name: {key: value[number] for key, value in part.items()}
                for name, part in found.items()
            }
            sample.set_field(parts, 'reconstruction', dtype=dict)
            features = {name: vector[number] for name, vector in vectors.items()}
            sample.set_field(features, 'features', dtype=dict)
        return samples

    @torch.no_grad()
    def embed(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> dict[str, Tensor]:
        """One vector an image and modality: the mean of the encoder's map where it has data.

        Nothing is masked, and the neck, where the modalities would see each other, is left out.

        Args:
            inputs: Shape (B, C, H, W), NaN where there are no data.
            data_samples: May bring ``valid_mask``.

        Returns:
            For each modality (B, D), NaN for images that lack it.
        """
        vectors = {}
        for name, part in self.split(inputs, data_samples).items():
            x = self.backbone.branches[name](part.image)[-1]
            valid = part.cells((x.shape[2], x.shape[3]), self.min_valid)
            x = _tokens(x).float()
            weight = torch.ones_like(x[..., :1]) if valid is None else valid[..., None].to(x)
            vectors[name] = (x * weight).sum(1) / weight.sum(1)
        return vectors

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Encodes whole images, each modality on its own.

        Args:
            inputs: Shape (B, C, H, W), NaN where there are no data.

        Returns:
            A map (B, C, h, w) for each modality, of the encoders that are released: before the
            neck.
        """
        parts = self.split(inputs)
        return tuple(self.backbone.branches[name](part.image)[-1] for name, part in parts.items())


def _built(config: Mapping[str, Any], default_type: str, **defaults: Any) -> nn.Module:
    return MODELS.build({'type': f'mmrsfm.{default_type}', **defaults, **config})


def _enlarged(mask: Tensor, factor: int) -> Tensor:
    """(B, h, w) to (B, h * factor, w * factor)."""
    return mask.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def _tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
