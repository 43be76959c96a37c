# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws the noise that decides which patches a masked autoencoder sees."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.transforms import BaseTransform

from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DrawMaskNoise(BaseTransform):
    """Draws mask noise with the sample, so that it follows from (seed, epoch, sample index).

    A masked autoencoder keeps the patches with the smallest noise (He et al., "Masked Autoencoders
    Are Scalable Vision Learners", arXiv 2111.06377). Drawn here, the mask does not depend on the
    number of workers, ranks or the place of the sample in its batch.

    Required keys: ``img`` (H, W, C). Added: ``mask_noise``, float32 tensor (V, L) in [0, 1); and
    ``modality_noise``, float32 tensor () in [0, 1), where it is asked for.

    Args:
        patch_size: Edge of a patch in pixels; L = (H // patch_size) * (W // patch_size).
        num_views: V: 2 for Cross-Scale MAE (row 0 the original view, row 1 the crop), 1 for MAE.
        same_for_views: All views share one row of noise.
        modality_noise: Whether to draw the number by which :class:`mmrsfm.MaRS` takes a modality
            away, for its ``modality_dropout``.

    Raises:
        ImageSizeError: The image is not a whole number of patches.
    """

    def __init__(
        self,
        patch_size: int = 16,
        num_views: int = 2,
        same_for_views: bool = False,
        modality_noise: bool = False,
    ) -> None:
        if patch_size < 1 or num_views < 1:
            raise ConfigError('DrawMaskNoise: patch_size and num_views must be at least 1')
        self.patch_size = patch_size
        self.num_views = num_views
        self.same_for_views = same_for_views
        self.modality_noise = modality_noise

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Draws the noise; see the class."""
        h, w = results['img'].shape[:2]
        if h % self.patch_size or w % self.patch_size:
            raise ImageSizeError(
                f'{h} x {w} pixels (H x W) are not a whole number of patches of {self.patch_size}',
                path=results.get('img_path'),
                hint='Put mmrsfm.Resize, mmrsfm.RandomResizedCrop or mmrsfm.Pad before it',
            )
        patches = (h // self.patch_size) * (w // self.patch_size)
        # torch's float32 draws stay below 1; NumPy's, rounded to float32, can become 1.
        noise = torch.rand(1 if self.same_for_views else self.num_views, patches)
        results['mask_noise'] = noise.expand(self.num_views, patches).contiguous()
        if self.modality_noise:
            results['modality_noise'] = torch.rand(())
        return results

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
