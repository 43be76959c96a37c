# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Translates the image of one modality to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.modalities import (
    ModalityInput,
    channel_columns,
    check_modalities,
    split_modalities,
)
from mmrsfm.models.losses.ssim import structural_similarity
from mmrsfm.models.pretext.views import stack_valid
from mmrsfm.registry import MODELS


@MODELS.register_module()
class ModalityTranslator(BaseModel):
    """Encoder, neck and decoder: the source modality in, the target modality out.

    Input is one tensor with the channels of all modalities behind each other (see
    :mod:`mmrsfm.layers.modalities`), co-registered; which is translated to which is said by
    ``source`` and ``target``. The target may be missing when it is predicted.

    **Training** compares in normalised units, where the target **and** the source are valid:
    ``loss_l1``, the mean absolute error, and with ``ssim_weight`` ``loss_ssim``, 1 - SSIM of the
    values scaled to ``value_range`` (invalid pixels of both images are those of the target there).

    :meth:`predict` adds to each data sample, in the values that mean and std of the data
    preprocessor refer to, cropped to the sample's ``img_shape``: ``pred_image`` (C, H, W);
    ``gt_image`` (C, H, W), unless the target is wholly missing; ``image_valid`` (H, W) bool, where
    not all pixels of both are valid.

    The published system reports a PSNR on GUSO without code or direction (facts: mars.md, section
    5); this expression of the task is ours.

    Args:
        modalities: Number of channels of each.
        source: The modality that is translated.
        target: The modality that is made.
        backbone: Config of a backbone with feature maps; ``in_channels`` is that of the source
            where it states none.
        neck: Makes one map of them; ``None``: the first map of the backbone. A neck that returns
            several gives its first.
        decoder: :class:`mmrsfm.PixelShuffleDecoder`; its ``out_channels``, and its
            ``image_channels`` unless stated, are filled in.
        ssim_weight: Weight of the SSIM term; 0: none.
        value_range: Smallest and largest value of the target, for the SSIM term and to clip
            predictions to.
        data_preprocessor: :class:`mmrsfm.MultiBandDataPreprocessor`.
        init_cfg: See MMEngine.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        source: str,
        target: str,
        backbone: dict,
        decoder: dict,
        neck: dict | None = None,
        ssim_weight: float = 0.0,
        value_range: Sequence[float] = (0.0, 255.0),
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.modalities = check_modalities(modalities)
        if source == target or not {source, target} <= set(self.modalities):
            raise ConfigError(
                f'ModalityTranslator: source={source!r} and target={target!r} must be two of '
                f'{list(self.modalities)}'
            )
        low, high = value_range
        if not low < high:
            raise ConfigError(f'ModalityTranslator: value_range={tuple(value_range)} is empty')
        self.source, self.target = source, target
        self.ssim_weight = ssim_weight
        self.value_range = (float(low), float(high))
        columns = channel_columns(self.modalities)
        self._channels = slice(columns[target][0], columns[target][-1] + 1)
        self.input_columns = {'backbone': columns[source]}
        self.backbone = MODELS.build({'in_channels': self.modalities[source], **backbone})
        self.neck = None if neck is None else MODELS.build(neck)
        self.decoder = MODELS.build(
            {
                'type': 'mmrsfm.PixelShuffleDecoder',
                'image_channels': self.modalities[source],
                **decoder,
                'out_channels': self.modalities[target],
            }
        )

    def translate(self, image: Tensor) -> Tensor:
        """Translates images of the source.

        Args:
            image: Shape (B, C, H, W), normalised, finite.

        Returns:
            Shape (B, C', H, W), normalised like the target.
        """
        maps = self.backbone(image)
        maps = maps if self.neck is None else self.neck(maps)
        return self.decoder(maps[0] if isinstance(maps, (tuple, list)) else maps, image)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> Any:
        """Runs the model; see :meth:`mmengine.model.BaseModel.forward`.

        Args:
            inputs: Shape (B, C, H, W), the channels of all modalities.
            data_samples: May bring ``valid_mask``.
            mode: ``'tensor'``: the normalised translation; ``'loss'``, ``'predict'``.
        """
        if mode == 'tensor':
            return self.translate(self._split(inputs, data_samples)[self.source].image)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ConfigError(f"mode={mode!r} is not 'tensor', 'loss' or 'predict'")

    def loss(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> dict[str, Tensor]:
        """Compares translations with the target; see the class.

        Args:
            inputs: Shape (B, C, H, W).
            data_samples: May bring ``valid_mask``.

        Returns:
            ``loss_l1`` and, with a weight, ``loss_ssim``; 0 where nothing is valid.
        """
        parts = self._split(inputs, data_samples)
        pred = self.translate(parts[self.source].image).float()
        truth = parts[self.target].image.float()
        valid = self._valid(parts)
        if valid is None:
            losses = {'loss_l1': (pred - truth).abs().mean()}
        else:
            # Not a product with 0 of what is not valid: its gradient may be no number.
            error = torch.where(valid, pred - truth, 0.0).abs().sum()
            losses = {'loss_l1': error / (valid.sum() * pred.shape[1]).clamp(min=1)}
            pred = torch.where(valid, pred, truth)
        if self.ssim_weight:
            low, high = self.value_range
            made, true = (
                (self._values(image, data_samples) - low) / (high - low) for image in (pred, truth)
            )
            losses['loss_ssim'] = self.ssim_weight * (1.0 - structural_similarity(made, true))
        return losses

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None
    ) -> Sequence[DataSample]:
        """Translates; see the class for what is added.

        Args:
            inputs: Shape (B, C, H, W).
            data_samples: To add the results to; ``None``: new ones.
        """
        if data_samples is None:
            data_samples = [DataSample() for _ in inputs]
        parts = self._split(inputs, data_samples)
        pred = self._values(self.translate(parts[self.source].image), data_samples)
        truth = self._values(parts[self.target].image, data_samples)
        valid = self._valid(parts)
        for number, sample in enumerate(data_samples):
            height, width = getattr(sample, 'img_shape', inputs.shape[2:])[:2]
            part = (slice(None), slice(0, height), slice(0, width))
            sample.set_field(pred[number][part].clamp(*self.value_range), 'pred_image')
            if parts[self.target].present[number]:
                sample.set_field(truth[number][part], 'gt_image')
            if valid is not None and not valid[number][part].all():
                sample.set_field(valid[number][part][0], 'image_valid')
        return data_samples

    def _split(
        self, inputs: Tensor, data_samples: Sequence[Any] | None
    ) -> dict[str, ModalityInput]:
        return split_modalities(inputs, self.modalities, stack_valid(data_samples, inputs))

    def _valid(self, parts: Mapping[str, ModalityInput]) -> Tensor | None:
        """Where both modalities have data, (B, 1, H, W); None: everywhere."""
        masks = [parts[name].valid for name in (self.source, self.target)]
        known = [mask for mask in masks if mask is not None]
        if not known:
            return None
        return known[0] if len(known) == 1 else known[0] & known[1]

    def _values(self, images: Tensor, data_samples: Sequence[Any] | None) -> Tensor:
        """The target in the values of the files."""
        denormalize = getattr(self.data_preprocessor, 'denormalize', None)
        if denormalize is None:
            return images.float()
        return denormalize(images, data_samples, self._channels)
