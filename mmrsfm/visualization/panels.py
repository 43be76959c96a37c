# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of results: image, labels and predictions beside each other, with a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def stretch(
    image: np.ndarray, percentiles: tuple[float, float] = (1.0, 99.0), gamma: float = 1.0
) -> np.ndarray:
    """Stretches bands to 8 bits for display, each band between two percentiles.

    Args:
        image: (H, W, 3), any unit; NaN and infinite values become black.
        percentiles: The lower and the upper one, in percent.
        gamma: Exponent after the stretch; below 1 brightens the dark.

    Returns:
        uint8 (H, W, 3).
    """
    image = image.astype(np.float32)
    finite = np.isfinite(image)
    out = np.zeros(image.shape, dtype=np.uint8)
    for band in range(image.shape[-1]):
        values = image[..., band][finite[..., band]]
        if values.size:
            low, high = np.percentile(values, percentiles)
            scaled = (np.nan_to_num(image[..., band]) - low) / max(float(high - low), 1e-6)
            out[..., band] = (np.clip(scaled, 0, 1) ** gamma * 255).round()
    out[~finite] = 0
    return out


def colourise(class_map: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Paints a class map.

    Args:
        class_map: Class numbers, (H, W); numbers without a colour become white.
        palette: Colour of each class, red, green, blue in 0 to 255.

    Returns:
        uint8 (H, W, 3).
    """
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    return table[class_map.astype(np.uint8)]


def distinct_colours(count: int) -> list[list[int]]:
    """A colour for each class, neighbours far apart on the colour wheel.

    Args:
        count: Number of classes.

    Returns:
        Red, green, blue in 0 to 255 of each.
    """
    colours = [
        colorsys.hsv_to_rgb(
            0.618034 * number % 1, 0.55 + 0.4 * (number % 2), 0.95 - 0.3 * (number % 3 / 2)
        )
        for number in range(count)
    ]
    return [[round(255 * part) for part in colour] for colour in colours]


def draw_panels(
    path: str | Path,
    panels: Sequence[tuple[str, np.ndarray]],
    legend: Sequence[tuple[str, Sequence[int]]] = (),
    caption: str = '',
    width: float = 11.0,
) -> Path:
    """Draws images of one size below each other (wide images) or side by side (others).

    Args:
        path: The PNG to write.
        panels: Title and uint8 (H, W, 3) image of each panel.
        legend: Name and colour of each class.
        caption: A line below, e.g. the credit of the imagery.
        width: Width of the picture in inches, at 120 dots per inch.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    height_px, width_px = panels[0][1].shape[:2]
    stacked = width_px > 1.5 * height_px
    rows, columns = (len(panels), 1) if stacked else (1, len(panels))
    each = width / columns * height_px / width_px
    # The canvas is made here, not by pyplot: no global state, no display needed.
    figure = Figure(figsize=(width, rows * (each + 0.3) + 0.55), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, image) in zip(axes, panels, strict=True):
        axis.imshow(image, interpolation='nearest')
        axis.set_title(title, fontsize=9, loc='left')
        axis.set_axis_off()
    handles = [Patch(color=np.asarray(colour) / 255, label=name) for name, colour in legend]
    if handles:
        figure.legend(
            handles=handles,
            loc='outside lower right',
            ncols=len(handles),
            fontsize=8,
            frameon=False,
        )
    if caption:
        figure.supxlabel(caption, fontsize=7, x=0.01, ha='left')
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
