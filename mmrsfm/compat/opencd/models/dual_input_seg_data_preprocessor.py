# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Normalises and pads pairs of images that lie one after the other in the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.structures import SegDataSample

from mmrsfm.compat.opencd.registry import MODELS
from mmrsfm.errors import BandMismatchError, ConfigError, ImageSizeError

_SWAPPED = (2, 1, 0, 5, 4, 3)


@MODELS.register_module()
class DualInputSegDataPreProcessor(SegDataPreProcessor):
    """mmseg's SegDataPreProcessor for images of two dates, (2C, H, W) each.

    Channels are swapped (of pairs of three-channel images), values are normalised, and only then is
    padded, at the right and at the bottom, so that ``pad_val=0`` is the mean.

    Args:
        mean: One value a channel of the pair (six for RGB), in the order after the swap.
        std: Likewise.
        size: (H, W) of the padded batch; give this or ``size_divisor``.
        size_divisor: Pad to the next multiples.
        pad_val: Value in the padding of the images.
        seg_pad_val: Value in the padding of the labels.
        bgr_to_rgb: Swap channels 0 and 2 of each date.
        rgb_to_bgr: The same swap under its other name.
        batch_augments: As in mmseg.
        test_cfg: ``dict(size=...)`` or ``dict(size_divisor=...)``: how to pad while testing;
            ``None``: not at all. All images of a test batch must have one size.

    Raises:
        ConfigError: For contradictory arguments.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: Sequence[int] | None = None,
        size_divisor: int | None = None,
        pad_val: float = 0,
        seg_pad_val: float = 255,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        batch_augments: Any = None,
        test_cfg: dict[str, Any] | None = None,
    ) -> None:
        name = type(self).__name__
        if size is not None and size_divisor is not None:
            raise ConfigError(f'{name}: give size or size_divisor, not both')
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
            raise ConfigError(f'{name}: mean and std must have the same number of values')
        if bgr_to_rgb and rgb_to_bgr:
            raise ConfigError(f'{name}: bgr_to_rgb and rgb_to_bgr are the same swap: set one')
        # Without mean and std: mmengine's base class takes one or three of them.
        super().__init__(
            size=None if size is None else tuple(size),
            # mmseg wants exactly one of them while training.
            size_divisor=1 if size is None and size_divisor is None else size_divisor,
            pad_val=pad_val,
            seg_pad_val=seg_pad_val,
            bgr_to_rgb=bgr_to_rgb,
            rgb_to_bgr=rgb_to_bgr,
            batch_augments=batch_augments,
            test_cfg=test_cfg,
        )
        if mean is not None and std is not None:
            self._enable_normalize = True
            for key, values in (('mean', mean), ('std', std)):
                constants = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
                self.register_buffer(key, constants, persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepares a batch.

        Args:
            data: ``dict(inputs, data_samples)``; ``inputs`` a list of (2C, H, W) or one
                (B, 2C, H, W), in 0 to 255.
            training: Whether to pad as in training, labels by the same amounts.

        Returns:
            ``dict(inputs, data_samples)``; ``inputs`` (B, 2C, H, W) float32.

        Raises:
            BandMismatchError: If the number of channels is not that of ``mean``.
            ImageSizeError: If images of a test batch differ in size.
        """
        data = dict(self.cast_data(data))
        images = list(data['inputs'])
        channels = images[0].shape[0]
        if self._enable_normalize and channels != self.mean.numel():
            raise BandMismatchError(
                f'the images have {channels} channels, mean and std {self.mean.numel()} values',
                hint='Both dates count: mean and std of an RGB pair have six values',
            )
        if self._channel_conversion and channels == len(_SWAPPED):
            images = [image[list(_SWAPPED)] for image in images]
        shapes = sorted({tuple(image.shape[-2:]) for image in images})
        if not training and len(shapes) > 1:
            raise ImageSizeError(
                f'the images of a test batch differ in size: {shapes}', hint='Use batch_size=1'
            )
        data['inputs'] = images
        if data.get('data_samples') is None and not training and self.test_cfg:
            # The amount of padding has to be kept somewhere, to be cut off again.
            meta = {'ori_shape': shapes[0], 'img_shape': shapes[0]}
            data['data_samples'] = [SegDataSample(metainfo=meta) for _ in images]
        if training:
            self._check_labels(data.get('data_samples') or (), shapes)
        return super().forward(data, training)

    def _check_labels(self, samples: Sequence[Any], shapes: Sequence[tuple[int, int]]) -> None:
        # A label that is smaller than its image (OSCD) stays right only where nothing is padded.
        for sample in samples:
            label = getattr(sample, 'gt_sem_seg', None)
            if label is None or (len(shapes) == 1 and self._fits(shapes[0])):
                continue
            shape, expected = tuple(label.shape[-2:]), tuple(sample.img_shape[:2])
            if shape != expected:
                raise ImageSizeError(
                    f'the label is {shape[0]} x {shape[1]}, the image {expected[0]} x '
                    f'{expected[1]}, and images of this batch are padded',
                    path=sample.get('seg_map_path'),
                    hint='Load the annotations before MultiImgResize, or resize to a multiple of '
                    'size_divisor',
                )

    def _fits(self, shape: tuple[int, int]) -> bool:
        """Whether images of this size are not padded."""
        if self.size is not None:
            return shape[0] >= self.size[0] and shape[1] >= self.size[1]
        return all(side % self.size_divisor == 0 for side in shape)
