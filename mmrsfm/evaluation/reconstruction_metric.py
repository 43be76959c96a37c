# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How much of what was hidden a masked autoencoder reconstructs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.models.utils import to_2tuple
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import patchify
from mmrsfm.registry import METRICS

# Sums over hidden pixels: their number, values, squares, squared errors; and the squares and
# squared errors of what remains of values and errors without the mean of each patch.
_NUMBER, _VALUES, _SQUARES, _ERRORS, _DETAIL, _DETAIL_ERRORS = range(6)


@METRICS.register_module()
class ReconstructionMetric(BaseMetric):
    """Explained variance of hidden pixels, in percent, for each modality or band.

    For the data samples that :meth:`mmrsfm.SARWMixMAE.predict` and :meth:`mmrsfm.MaRS.predict`
    return. Over all hidden pixels with data, of all samples together:

    * ``<name>/explained``: ``1 - sum (pred - x)^2 / sum (x - mean)^2``. 0 is the constant that fits
      best, 100 the image. Of a model with ``norm_pix`` it says nothing: its pictures take mean and
      deviation of each patch from the image.
    * ``<name>/explained_detail``: the same of what remains of ``pred`` and ``x`` when each hidden
      patch has lost its mean, so that grey levels are worth nothing: 0 is any prediction of one
      grey level a patch, above 0 there is structure, below 0 structure that is not there. Noise,
      such as the speckle of SAR, cannot be predicted: 100 is out of reach.

    Args:
        patch_size: Side of the patches that are hidden, in pixels, or height and width.
        field: Field of the samples.
        collect_device: See MMEngine.
        prefix: Before the names of the numbers.

    Raises:
        ConfigError: When samples are read, without reconstructions.
    """

    default_prefix = 'reconstruction'

    def __init__(
        self,
        patch_size: int | tuple[int, int] = 32,
        field: str = 'reconstruction',
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.patch_size = to_2tuple(patch_size)
        self.field = field

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Sums over the hidden pixels of a batch."""
        for sample in data_samples:
            found = sample.get(self.field)
            if not found:
                raise ConfigError(
                    f'ReconstructionMetric: the samples have no {self.field}; the model must '
                    'predict one, as mmrsfm.SARWMixMAE and mmrsfm.MaRS do'
                )
            self.results.append({name: self._sums(part) for name, part in found.items()})

    def _sums(self, part: Mapping[str, Tensor]) -> Tensor:
        image, pred = part['image'].detach().double(), part['pred'].detach().double()
        hidden = part['mask'].detach().bool() & torch.isfinite(image)
        image, error = image.where(hidden, 0.0), (pred - image).where(hidden, 0.0)
        # One band after the other, so that each patch of each band loses its own mean.
        cut = [patchify(one.unsqueeze(1), self.patch_size) for one in (image, error, hidden)]
        values, errors, known = (one.flatten(0, 1) for one in cut)
        count = known.sum(1, keepdim=True).clamp(min=1)

        def detail(x: Tensor) -> Tensor:
            return (x - x.sum(1, keepdim=True) / count).where(known, 0.0).square().sum()

        sums = [known.sum(), values.sum(), values.square().sum(), errors.square().sum()]
        return torch.stack([*sums, detail(values), detail(errors)]).double().cpu()

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """The numbers; NaN where nothing was hidden, or nothing varies."""
        metrics: dict[str, float] = {}
        for name in results[0]:
            sums = torch.stack([one[name] for one in results]).sum(0)
            spread = sums[_SQUARES] - sums[_VALUES].square() / sums[_NUMBER]
            metrics[f'{name}/explained'] = _percent(sums[_ERRORS], spread)
            metrics[f'{name}/explained_detail'] = _percent(sums[_DETAIL_ERRORS], sums[_DETAIL])
        return metrics


def _percent(errors: Tensor, spread: Tensor) -> float:
    return float(100 * (1 - errors / spread)) if spread > 0 else float('nan')
