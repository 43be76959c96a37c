# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws the rectangle of a sample's second, zoomed-in view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DrawScaleCrop(BaseTransform):
    """Draws, for each sample, the crop that Cross-Scale MAE sees as its second view.

    The reference draws one rectangle a batch inside the model; with this transform every sample has
    its own, and it follows from (seed, epoch, sample index). The model cuts and resizes it on the
    device. (Tang et al., "Cross-Scale MAE", NeurIPS 2023, arXiv 2401.15855.)

    Required keys: ``img`` (H, W, C). Added: ``scale_crop``, int64 tensor (4,): top, left, height,
    width in pixels of ``img``.

    Args:
        scale: Range of the area, as a fraction of the image.
        ratio: Range of the aspect, width / height.
    """

    def __init__(
        self, scale: Sequence[float] = (0.25, 0.75), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Draws the rectangle; see the class."""
        h, w = results['img'].shape[:2]
        results['scale_crop'] = torch.tensor(geometry.draw_crop(h, w, self.scale, self.ratio))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale}, ratio={self.ratio})'
