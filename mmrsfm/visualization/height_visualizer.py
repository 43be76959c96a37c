# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of height maps, with a scale in metres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.visualization import Visualizer

from mmrsfm.registry import VISUALIZERS


@VISUALIZERS.register_module()
class HeightVisualizer(Visualizer):
    """Draws an image, its heights, the predicted ones and the error beside each other.

    Heights and prediction share one scale of colours, from 0 (or less) to what 99.5 % of their
    pixels stay below; the error, prediction minus height, has one that is symmetric about 0. Pixels
    without a height are grey. ``tools/test.py --show-dir`` uses it where a config names it::

        default_hooks = dict(visualization=dict(type='mmrsfm.VisualizationHook'))
        visualizer = dict(type='mmrsfm.HeightVisualizer', name='visualizer')

    Args:
        name: Of the instance, which MMEngine keeps.
        unit: What stands at the scales.
        **kwargs: Of MMEngine's Visualizer.
    """

    def __init__(self, name: str = 'visualizer', unit: str = 'm', **kwargs: Any) -> None:
        super().__init__(name, **kwargs)  # MMEngine looks for the argument `name`
        self.unit = unit

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
    ) -> None:
        """Draws one sample.

        Args:
            name: Name of the picture.
            image: uint8 RGB (H, W, 3).
            data_sample: With ``gt_depth_map``, ``pred_depth_map`` or both, each (1, H, W).
            draw_gt: Whether to draw the heights.
            draw_pred: Whether to draw the prediction.
            show: Open a window.
            wait_time: Seconds for which it stays.
            out_file: The picture to write; without it, it goes to the backends.
            step: For the backends.
        """
        target = _map(data_sample, 'gt_depth_map') if draw_gt else None
        predicted = _map(data_sample, 'pred_depth_map') if draw_pred else None
        picture = draw_heights(image, target, predicted, self.unit)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is None:
            self.add_image(name, picture, step)
        else:
            from PIL import Image

            Path(out_file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(out_file)


def draw_heights(
    image: np.ndarray,
    target: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    unit: str = 'm',
) -> np.ndarray:
    """An image and what is known of its heights, in panels with scales.

    Args:
        image: uint8 RGB (H, W, 3).
        target: Heights (h, w), NaN where they are not known.
        predicted: Heights (h, w).
        unit: What stands at the scales.

    Returns:
        uint8 RGB.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [values for values in (target, predicted) if values is not None]
    limits = _limits(known)
    panels: list[tuple[str, np.ndarray, str | None, tuple[float, float]]] = [
        ('image', image, None, limits)
    ]
    if target is not None:
        panels.append(('height', target, 'viridis', limits))
    if predicted is not None:
        panels.append(('prediction', predicted, 'viridis', limits))
    if target is not None and predicted is not None and target.shape == predicted.shape:
        error = predicted - target
        finite = np.abs(error[np.isfinite(error)])
        most = max(float(np.percentile(finite, 99.5)) if finite.size else 0.0, 1e-3)
        panels.append(('prediction - height', error, 'RdBu_r', (-most, most)))
    ratio = image.shape[0] / image.shape[1]
    # Not pyplot: no global state, no display needed.
    figure = Figure(figsize=(3.6 * len(panels), 3.0 * ratio + 0.5), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False).ravel()
    for axis, (title, values, colours, (low, high)) in zip(axes, panels, strict=True):
        axis.set_title(title, fontsize=9, loc='left')
        axis.set_axis_off()
        if colours is None:
            axis.imshow(values, interpolation='nearest')
            continue
        table = colormaps[colours].with_extremes(bad='0.6')
        drawn = axis.imshow(
            np.ma.masked_invalid(values), table, vmin=low, vmax=high, interpolation='nearest'
        )
        bar = figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.02)
        bar.set_label(unit, fontsize=8)
        bar.ax.tick_params(labelsize=7)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _limits(maps: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([one[np.isfinite(one)] for one in maps]) if maps else np.zeros(0)
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    return min(float(low), 0.0), max(float(high), 1e-3)


def _map(sample: Any, key: str) -> np.ndarray | None:
    found = getattr(sample, key, None)
    return None if found is None else found.data.squeeze().detach().float().cpu().numpy()
