# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of masked pretraining: image, what of it was hidden, and what the model made of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrsfm.errors import ConfigError
from mmrsfm.registry import VISUALIZERS
from mmrsfm.visualization.modality_visualizer import ModalityVisualizer, beside
from mmrsfm.visualization.panels import colourise, distinct_colours, draw_panels
from mmrsfm.visualization.samples import natural_bands

Reconstruction = Mapping[str, Mapping[str, Any]]
_HIDDEN, _MISSING = (127, 127, 127), (70, 0, 0)
_PERCENTILES = (2.0, 98.0)
_IN_A_ROW = 3  # modalities; more are drawn below each other


@VISUALIZERS.register_module()
class ReconstructionVisualizer(ModalityVisualizer):
    """Image, masked image and prediction of each modality, beside each other; and weights.

    For what :meth:`mmrsfm.CrossScaleMAE.predict`, :meth:`mmrsfm.MaRS.predict`,
    :meth:`mmrsfm.MPMAE.predict` and :meth:`mmrsfm.SARWMixMAE.predict` return: data samples with
    ``reconstruction``. ``tools/test.py --show-dir`` takes it for these models.

    Args:
        modalities: Not needed: a reconstruction names its modalities.
        name: See MMEngine's Visualizer.
        **kwargs: As of MMEngine's Visualizer.
    """

    def __init__(
        self,
        modalities: Mapping[str, int] | None = None,
        name: str = 'visualizer',
        **kwargs: Any,
    ) -> None:
        super().__init__(modalities or {'image': 1}, name, **kwargs)

    def draw(self, shown: dict[str, Any], sample: Any) -> np.ndarray:
        """See :meth:`ModalityVisualizer.draw`.

        Raises:
            ConfigError: If the model reconstructs nothing.
        """
        found = getattr(sample, 'reconstruction', None)
        if found is None:
            raise ConfigError(
                'ReconstructionVisualizer draws what mmrsfm.CrossScaleMAE, mmrsfm.MaRS, '
                'mmrsfm.MPMAE or mmrsfm.SARWMixMAE predicts; this data sample has no reconstruction'
            )
        return arranged(found, band_names=shown.get('band_names'))


def arranged(
    reconstruction: Reconstruction,
    paste: bool = True,
    band_names: Sequence[str] | None = None,
) -> np.ndarray:
    """The panels of a sample as one picture: few modalities beside, many below each other.

    Args:
        reconstruction: See :func:`reconstruction_panels`.
        paste: See :func:`reconstruction_panels`.
        band_names: Of the sample: what has as many channels is shown in natural colours where the
            names tell them.

    Returns:
        uint8 (H, W, 3).
    """
    natural = natural_bands(band_names)
    if natural is not None:
        reconstruction = {
            name: {'bands': natural, **part}
            if len(part['image']) == len(band_names or ())
            else part
            for name, part in reconstruction.items()
        }
    panels = reconstruction_panels(reconstruction, paste)
    each = len(panels) // len(reconstruction)
    if len(reconstruction) <= _IN_A_ROW or each * len(reconstruction) != len(panels):
        return beside(panels)
    rows = [beside(panels[start : start + each]) for start in range(0, len(panels), each)]
    return np.concatenate(rows)


def reconstruction_panels(
    reconstruction: Reconstruction, paste: bool = True
) -> list[tuple[str, np.ndarray]]:
    """Image, masked image and prediction of each modality.

    Bands are stretched between percentiles of the image; the prediction is stretched alike, so that
    the same number has the same colour. Pixels without data are dark red, hidden ones grey.

    Args:
        reconstruction: For each modality ``image`` (C, H, W) with NaN where there are no data,
            ``pred`` (C, H, W) and ``mask`` (1, H, W), True where it was hidden; tensors or arrays.
            Optional: ``weight`` (1, H, W), 0 where there are no data: how much each pixel weighs in
            the loss; ``bands``: the one or three channels that are shown, from 0 (default: the
            first three, or the first); ``classes``: their number, where ``image`` and ``pred``
            (1, H, W) are classes, negative where there are no data.
        paste: Whether the prediction is shown in hidden and missing places alone, and around it the
            image.

    Returns:
        Three panels a modality, each a title and uint8 (H, W, 3); with weights a fourth, black for
        the smallest weight of the image, white for the largest, which the title says.
    """
    panels = []
    for name, part in reconstruction.items():
        image, pred, mask = (_array(part[key]) for key in ('image', 'pred', 'mask'))
        hidden = mask[..., 0].astype(bool)
        if part.get('classes'):
            missing = image[..., 0] < 0
            palette = distinct_colours(int(part['classes']))
            whole, painted = (colourise(one[..., 0], palette) for one in (image, pred))
        else:
            bands = list(part.get('bands') or ((0, 1, 2) if image.shape[2] >= 3 else (0,)))
            bands = bands if len(bands) == 3 else bands * 3
            image, pred = image[..., bands], pred[..., bands]
            missing = ~np.isfinite(image).all(axis=2)
            whole, painted = _stretched(image, pred)
        if paste:
            painted = np.where((hidden | missing)[..., None], painted, whole)
        whole[missing] = _MISSING
        masked = whole.copy()
        masked[hidden & ~missing] = _HIDDEN
        panels += [(name, whole), (f'{name}, masked', masked), (f'{name}, predicted', painted)]
        if 'weight' in part:
            panels.append(_weight_panel(name, _array(part['weight'])[..., 0]))
    return panels


def _weight_panel(name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    known = weight > 0
    low, high = (float(weight[known].min()), float(weight.max())) if known.any() else (0.0, 0.0)
    grey = np.clip((weight - low) / max(high - low, 1e-6), 0, 1) * 255
    panel = np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)
    panel[~known] = _MISSING
    return f'{name}, weight {low:.2f} to {high:.2f}', panel


def draw_reconstructions(
    path: str | Path,
    reconstructions: Sequence[Reconstruction],
    title: str = '',
    caption: str = '',
    paste: bool = True,
) -> Path:
    """Draws samples below each other.

    Args:
        path: The PNG to write.
        reconstructions: Samples of one size, see :func:`reconstruction_panels`.
        title: Above the picture.
        caption: A line below, e.g. the credit of the imagery.
        paste: See :func:`reconstruction_panels`.

    Returns:
        The path.
    """
    rows = [arranged(one, paste) for one in reconstructions]
    return draw_panels(path, [(title, np.concatenate(rows))], caption=caption)


def _array(value: Any) -> np.ndarray:
    """(C, H, W), an array or a tensor on any device, to an array (H, W, C)."""
    if hasattr(value, 'detach'):
        value = value.detach().cpu().numpy()
    return np.asarray(value).transpose(1, 2, 0)


def _stretched(image: np.ndarray, pred: np.ndarray) -> list[np.ndarray]:
    """Both as uint8, by the percentiles of the image (of the prediction where there is none)."""
    limits = []
    for band in range(image.shape[2]):
        values = image[..., band][np.isfinite(image[..., band])]
        low, high = np.percentile(values if values.size else pred[..., band], _PERCENTILES)
        limits.append((low, max(float(high - low), 1e-6)))
    low, width = np.asarray(limits, dtype=np.float32).T
    return [
        (np.clip((np.nan_to_num(one) - low) / width, 0, 1) * 255).round().astype(np.uint8)
        for one in (image, pred)
    ]
