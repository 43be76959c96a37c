# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A segmentor of mmseg's form whose maps are heights."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.segmentors import DepthEstimator

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class HeightEstimator(DepthEstimator):
    """mmseg's DepthEstimator, whose windows (``mode='slide'``) work.

    mmseg's runs the windows and then the whole image, and returns the latter, so that an image that
    does not fit on the device fails, and any other is computed twice. Predictions are
    ``pred_depth_map`` (1, H, W) float32, in the unit of the targets (``gt_depth_map``), at the size
    of the image as it was read: the names are mmseg's, so that its transforms, preprocessors and
    metrics of depth take them.

    Args:
        **kwargs: ``backbone``, ``decode_head`` (``mmrsfm.HeightHead``), ``neck``,
            ``auxiliary_head``, ``data_preprocessor``, ``test_cfg`` (``mode``: ``'whole'``,
            ``'slide'``, or ``'slide_flip'``, the mean of each window and its mirror image;
            windows: ``crop_size``, ``stride``), ... as of mmseg's EncoderDecoder.

    Raises:
        ConfigError: If ``test_cfg`` asks for an unknown mode.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        mode = (self.test_cfg or {}).get('mode', 'whole')
        if mode not in ('whole', 'slide', 'slide_flip'):
            raise ConfigError(
                f"HeightEstimator: test_cfg.mode is 'whole', 'slide' or 'slide_flip', got {mode!r}"
            )
        self.mode = mode

    def inference(self, inputs: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        """Heights of a batch.

        Args:
            inputs: Images (B, C, H, W), normalised.
            batch_img_metas: What mmseg knows of them.

        Returns:
            Heights (B, 1, H, W).
        """
        run = {
            'whole': self.whole_inference,
            'slide': self.slide_inference,
            'slide_flip': self.slide_flip_inference,
        }[self.mode]
        heights: torch.Tensor = run(inputs, batch_img_metas)
        return heights
