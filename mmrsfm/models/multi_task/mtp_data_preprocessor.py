# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data preprocessor for images with several kinds of label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from torch import Tensor

from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.models.detection.multi_band_det_data_preprocessor import MultiBandDetDataPreprocessor
from mmrsfm.registry import MODELS

_MASKED = ('gt_instances', 'ignored_instances')
_DIVISOR = 32


@MODELS.register_module()
class MTPDataPreprocessor(MultiBandDetDataPreprocessor):
    """Normalises images of any number of bands, and pads images, masks and label maps alike.

    Everything is padded at the right and at the bottom, to multiples of ``pad_size_divisor`` and
    at least to ``size``. Boxes stay where they are. Samples need not have every kind of label.

    Args:
        size: Side of the images in pixels, or height and width; larger ones stay as they are.
            ``None``: the largest of the batch.
        pad_seg: ``True``: label maps are padded like the images. ``'as_published'``: only to the
            largest of their data set in the batch, in multiples of 32. The published pretraining
            (MTP, arXiv 2403.13430) does that, and the decode head then squeezes its prediction of
            the padded image onto the label of the image alone: wherever an image is smaller than
            ``size`` (29 % of them), pixels learn from labels of other places.
        seg_pad_value: Label of padded pixels.
        pad_size_divisor: Sides are multiples of this.
        channels_last: Whether the images go to the model in that memory format, which is faster
            for backbones of convolutions.
        **kwargs: ``mean``, ``std``, ``bgr_to_rgb`` and the contract, as of
            :class:`mmrsfm.MultiBandDetDataPreprocessor`.

    Raises:
        ConfigError: If ``pad_seg`` or ``size`` is something else.
        ImageSizeError: In forward, if a label has not the size of its image.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        pad_seg: bool | str = True,
        seg_pad_value: int = 255,
        pad_size_divisor: int = _DIVISOR,
        channels_last: bool = False,
        **kwargs: Any,
    ) -> None:
        if pad_seg not in (True, 'as_published'):
            raise ConfigError(f"pad_seg is True or 'as_published', got {pad_seg!r}")
        sides = [size] * 2 if isinstance(size, int) else list(size or (0, 0))
        if len(sides) != 2 or any(not isinstance(s, int) or s < 0 for s in sides):
            raise ConfigError(f'size is a side, or height and width, in pixels, got {size!r}')
        # The base class pads labels only if the first sample has them.
        super().__init__(pad_size_divisor=pad_size_divisor, pad_mask=False, pad_seg=False, **kwargs)
        self.size = (sides[0], sides[1])
        self.seg_padding = pad_seg
        self.seg_pad_value = seg_pad_value
        self.channels_last = channels_last

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepares a batch.

        Args:
            data: ``dict(inputs, data_samples)``; ``inputs`` a list of (C, H, W) or one (B, C, H,
                W).
            training: Whether labels are padded too. (When testing they are those of the original
                images.)

        Returns:
            ``dict(inputs, data_samples)``; ``inputs`` (B, C, H, W) float32. Samples say
            ``batch_input_shape`` and ``pad_shape``; label maps are under ``gt_sem_seg.data``,
            int64.
        """
        shapes = [tuple(image.shape[-2:]) for image in data['inputs']]
        data = super().forward(data, training)
        inputs, samples = data['inputs'], data['data_samples']
        inputs = self._padded(inputs)
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if samples is not None:
            shape = tuple(inputs.shape[-2:])
            for sample in samples:
                sample.set_metainfo({'batch_input_shape': shape, 'pad_shape': shape})
            if training:
                self._pad_labels(samples, shapes, shape)
        return {'inputs': inputs, 'data_samples': samples}

    def _padded(self, inputs: Tensor) -> Tensor:
        height, width = inputs.shape[-2:]
        wanted = [
            -(-max(side, least) // self.pad_size_divisor) * self.pad_size_divisor
            for side, least in zip((height, width), self.size, strict=True)
        ]
        extra = (0, wanted[1] - width, 0, wanted[0] - height)
        return F.pad(inputs, extra, value=float(self.pad_value)) if any(extra) else inputs

    def _pad_labels(
        self, samples: Sequence[Any], shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]
    ) -> None:
        published: dict[Any, tuple[int, int]] = {}
        if self.seg_padding == 'as_published':
            for sample, own in zip(samples, shapes, strict=True):
                name = sample.get('dataset_name')
                before = published.get(name, (0, 0))
                published[name] = (
                    max(before[0], -(-own[0] // _DIVISOR) * _DIVISOR),
                    max(before[1], -(-own[1] // _DIVISOR) * _DIVISOR),
                )
        for sample, own in zip(samples, shapes, strict=True):
            for key in _MASKED:
                instances = sample.get(key)
                if instances is not None and 'masks' in instances:
                    masks = instances.masks
                    _check(sample, 'masks', (masks.height, masks.width), own)
                    instances.masks = masks.pad(shape, pad_val=0)
            found = sample.get('gt_sem_seg')
            if found is not None:
                label = found.data if 'data' in found else found.sem_seg  # mmseg's, mmdet's
                _check(sample, 'a label map', tuple(label.shape[-2:]), own)
                target = published.get(sample.get('dataset_name'), shape)
                extra = (0, target[1] - own[1], 0, target[0] - own[0])
                label = F.pad(label.long(), extra, value=self.seg_pad_value)
                sample.gt_sem_seg = PixelData(data=label)


def _check(sample: Any, what: str, found: tuple[int, ...], image: tuple[int, ...]) -> None:
    if tuple(found) != tuple(image):
        raise ImageSizeError(
            f'{what} of {found[0]} x {found[1]} pixels for an image of {image[0]} x {image[1]}',
            path=sample.get('img_path'),
            hint='Transforms of the pipeline must change all of them alike',
        )
