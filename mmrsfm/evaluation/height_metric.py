# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The numbers by which height estimation is compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmrsfm.errors import ConfigError, DataError, ImageSizeError
from mmrsfm.registry import METRICS
from mmrsfm.utils.geotiff import write_float_map

_GROUND = ('include', 'exclude', 'exclude_from_delta')
_RATIOS = (1.25, 1.25**2, 1.25**3)


@METRICS.register_module()
class HeightMetric(BaseMetric):
    """MAE, MSE, RMSE and the delta accuracies of height maps.

    The pixels of all images (and ranks) count alike, each once; with h the height, p the
    prediction::

        MAE  = mean |p - h|            RMSE   = sqrt(MSE)
        MSE  = mean (p - h)^2          deltaN = share of max(p / h, h / p) < 1.25^N, N = 1, 2, 3

    (Eigen et al., "Depth Map Prediction from a Single Image", NeurIPS 2014, arXiv 1406.2283.) A
    ratio to the ground, of height 0, means nothing. As MaRS (AAAI 2026) defines the numbers, both
    are 1e-5 at least, and the ground counts: in deltaN with a prediction below 1.25e-5, which is to
    say, hardly ever where it is more than half of the image. That is the default;
    ``ground='exclude_from_delta'`` gives deltaN of what stands on it. (The published script reports
    the last image only; this one reports all.)

    mmseg's DepthMetric means over images whatever they hold, never counts a height of 0, and has
    neither MAE nor MSE.

    Args:
        floor: The least height, in metres: what is below it, in prediction and target, becomes it,
            for all numbers. ``None``: errors are those of the numbers as they are, and only ratios
            are of positive ones (at least 1e-5).
        ground: ``'include'``: every pixel of known height counts; ``'exclude'``: only those above
            ``ground_height``; ``'exclude_from_delta'``: those only in deltaN.
        ground_height: What is not higher, in metres, is ground.
        valid_range: Lowest and highest height of a target that counts, in metres. NaN and
            infinities (no data) never do.
        output_dir: Write the predictions there as float32 GeoTIFF, named like the images.
            (``tools/test.py --out DIR`` gives it.) Two images of one name are an error.
        keep_results: Not used: metrics of mmseg know it, and ``tools/test.py`` gives it.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ConfigError: For contradictory arguments; while evaluating, if a sample has no heights.
        ImageSizeError: While evaluating, if target and prediction differ in size.
    """

    def __init__(
        self,
        floor: float | None = 1e-5,
        ground: str = 'include',
        ground_height: float = 0.0,
        valid_range: tuple[float, float] | None = None,
        output_dir: str | None = None,
        keep_results: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if ground not in _GROUND:
            raise ConfigError(f'HeightMetric: ground is one of {_GROUND}, got {ground!r}')
        if floor is not None and floor <= 0:
            raise ConfigError(f'HeightMetric: floor must be positive or None, got {floor}')
        if valid_range is not None and not valid_range[0] < valid_range[1]:
            raise ConfigError(f'HeightMetric: valid_range={tuple(valid_range)} holds nothing')
        self.floor = floor
        self.ground = ground
        self.ground_height = ground_height
        self.valid_range = valid_range
        self.output_dir = output_dir
        self._written: dict[Path, str] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Sums up the pixels of a batch.

        Args:
            data_batch: Not used.
            data_samples: With ``pred_depth_map`` and ``gt_depth_map``, each (1, H, W), in metres.
        """
        for sample in data_samples:
            path = sample.get('img_path')
            if 'gt_depth_map' not in sample:
                raise ConfigError(
                    f'HeightMetric: there are no heights for {path}. Put mmrsfm.LoadHeightMap into '
                    'the pipeline, or predict without them: mmrsfm.HeightMapSubmission'
                )
            predicted, target = (
                sample[key]['data'].squeeze().double().cpu()
                for key in ('pred_depth_map', 'gt_depth_map')
            )
            if predicted.shape != target.shape:
                raise ImageSizeError(
                    f'the heights are {tuple(target.shape)}, the prediction, at the size of the '
                    f'image as it was read, {tuple(predicted.shape)}',
                    path=path,
                    hint='Put LoadHeightMap after Resize in the pipeline of the test',
                )
            # One entry a sample: MMEngine drops those that a sampler repeated to fill the ranks.
            self.results.append(self.sums(predicted, target))
            if self.output_dir is not None:
                file = Path(self.output_dir) / f'{Path(str(path)).stem}.tif'
                if self._written.setdefault(file, str(path)) != str(path):
                    raise DataError(
                        f'its heights would overwrite those of {self._written[file]}, which has '
                        'the same name',
                        path=path,
                        hint='Give the images names of their own',
                    )
                write_float_map(file, predicted.numpy(), str(path))

    def sums(self, predicted: torch.Tensor, target: torch.Tensor) -> np.ndarray:
        """What of one image is added up.

        Args:
            predicted: Heights (H, W), float64.
            target: Heights (H, W), float64; NaN where they are not known.

        Returns:
            float64 (7): number of pixels, sum of absolute and of squared errors, number of pixels
            of the ratios, and of those within 1.25, 1.25^2 and 1.25^3.
        """
        counted = torch.isfinite(target)
        if self.valid_range is not None:
            counted &= (target >= self.valid_range[0]) & (target <= self.valid_range[1])
        above = counted & (target > self.ground_height)
        if self.ground == 'exclude':
            counted = above
        if self.floor is not None:
            predicted, target = predicted.clamp(min=self.floor), target.clamp(min=self.floor)
        error = (predicted - target)[counted]
        compared = counted if self.ground == 'include' else above
        p, h = (values[compared].clamp(min=self.floor or 1e-5) for values in (predicted, target))
        ratio = torch.maximum(p / h, h / p)
        within = [(ratio < limit).sum() for limit in _RATIOS]
        parts: list[Any] = [
            error.numel(),
            error.abs().sum(),
            error.square().sum(),
            ratio.numel(),
            *within,
        ]
        return np.array([float(part) for part in parts])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The numbers of all images.

        Args:
            results: What :meth:`process` gathered, on all ranks.

        Returns:
            ``MAE`` and ``RMSE`` in metres, ``MSE`` in square metres, ``delta1``, ``delta2`` and
            ``delta3`` in [0, 1]; NaN where no pixel counts.
        """
        count, absolute, square, compared, *within = np.sum(results, axis=0)
        if not count or not compared:
            print_log(
                f'HeightMetric: {count:.0f} pixels count, {compared:.0f} in the ratios',
                logger='current',
                level=30,
            )
        mse = _ratio(square, count)
        numbers = {'MAE': _ratio(absolute, count), 'MSE': mse, 'RMSE': math.sqrt(mse)}
        for number, hits in enumerate(within, 1):
            numbers[f'delta{number}'] = _ratio(hits, compared)
        return numbers


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else math.nan
