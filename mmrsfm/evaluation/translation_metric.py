# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How close translated images are to true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS

_WINDOW = 11  # torchmetrics' Gaussian of sigma 1.5: int(3.5 * 1.5 + 0.5) * 2 + 1


@METRICS.register_module()
class TranslationMetric(BaseMetric):
    """PSNR and SSIM of predicted images, of each image, then averaged over the images.

    Both are torchmetrics' (SSIM: Gaussian window of 11 pixels, sigma 1.5, mean over the channels;
    Wang et al. 2004), on values in the units of the files, clipped to ``data_range``. Invalid
    pixels do not count: PSNR is over the valid numbers, SSIM over the pixels whose whole window is
    valid. An image without any such pixel is left out of the mean, and a perfect one has an
    infinite PSNR, which is averaged as ``max_psnr``.

    Reported: ``psnr`` (dB), ``ssim``, ``mae`` (units of the files).

    Args:
        data_range: Smallest and largest value of the target, e.g. (0, 255) for 8-bit imagery. PSNR
            depends on it: it must be that of whatever it is compared with.
        max_psnr: What the PSNR of an image is limited to, in dB.
        collect_device: See MMEngine.
        prefix: See MMEngine.
        collect_dir: See MMEngine.

    Raises:
        ConfigError: For an empty range; when samples are processed, if one has no target.
    """

    default_prefix = 'translation'

    def __init__(
        self,
        data_range: Sequence[float] = (0.0, 255.0),
        max_psnr: float = 100.0,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        low, high = data_range
        if not low < high:
            raise ConfigError(f'TranslationMetric: data_range={tuple(data_range)} is empty')
        self.data_range = (float(low), float(high))
        self.max_psnr = max_psnr

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measures the images of one batch.

        Args:
            data_batch: Not used.
            data_samples: With ``pred_image`` and ``gt_image``, both (C, H, W), and, where not all
                pixels are valid, ``image_valid`` (H, W) bool.
        """
        for sample in data_samples:
            if sample.get('gt_image') is None:
                raise ConfigError(
                    f'{sample.get("img_path")}: there is no true image to compare with: the target '
                    'modality is missing. Leave TranslationMetric out where there is none'
                )
            pred, truth = (
                torch.as_tensor(sample[name]).detach().cpu().double().clamp(*self.data_range)
                for name in ('pred_image', 'gt_image')
            )
            valid = sample.get('image_valid')
            good = torch.ones(truth.shape[1:], dtype=torch.bool)
            if valid is not None:
                good = torch.as_tensor(valid).detach().cpu().bool()
            self.results.append(
                (self._psnr(pred, truth, good), self._ssim(pred, truth, good),
                 float((pred - truth).abs()[:, good].mean()))
            )  # fmt: skip

    def _psnr(self, pred: Tensor, truth: Tensor, good: Tensor) -> float:
        if not good.any():
            return math.nan
        found = peak_signal_noise_ratio(pred[:, good], truth[:, good], self.data_range)
        return min(float(found), self.max_psnr)

    def _ssim(self, pred: Tensor, truth: Tensor, good: Tensor) -> float:
        reach = _WINDOW // 2
        if min(good.shape) <= reach:  # the reflection at the border needs as much
            return math.nan
        bad = (~good)[None, None].float()
        # The border is reflected in the image: nothing is invalid beyond it.
        whole = F.max_pool2d(bad, _WINDOW, stride=1, padding=reach)[0, 0] == 0
        if not whole.any():
            return math.nan
        fill = torch.where(good, truth, self.data_range[0])
        pred = torch.where(good, pred, fill)
        similarity = structural_similarity_index_measure(
            pred[None], fill[None], sigma=1.5, data_range=self.data_range, return_full_image=True
        )[1]
        return float(similarity[0][:, whole].mean())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Averages over the images; see the class.

        Args:
            results: PSNR, SSIM and mean error of each image.
        """
        return {
            name: _mean([one[place] for one in results])
            for place, name in enumerate(('psnr', 'ssim', 'mae'))
        }


def _mean(values: Sequence[float]) -> float:
    known = np.array([value for value in values if not math.isnan(value)])
    return float(known.mean()) if known.size else math.nan
