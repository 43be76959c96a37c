# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Curves of what runs logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mmrsfm.errors import ConfigError
from mmrsfm.visualization.run_logs import RunLog

_COLUMNS = 3
_LABELS = {'iter': 'step', 'epoch': 'epoch', 'hours': 'hours of training'}
_MARKED = 40  # points; curves of fewer show them
_SMOOTHED = 10  # points; curves of fewer stay as they are


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """An exponential mean of what was so far, without the pull of its start towards 0.

    Args:
        values: Numbers; those that are not finite are left out of the mean, and stay.
        weight: Of the past, in [0, 1), as in TensorBoard; 0 changes nothing.
    """
    mean, share, out = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            mean = weight * mean + (1 - weight) * value
            share = weight * share + (1 - weight)
            out.append(mean / share)
        else:
            out.append(value)
    return out


def draw_curves(
    path: str | Path,
    runs: Sequence[RunLog],
    keys: Sequence[str],
    axis: str = 'iter',
    smooth: float = 0.0,
    log: bool = False,
    title: str = '',
) -> Path:
    """Draws a panel for each number, with a curve for each run.

    Args:
        path: The picture; its suffix says what kind (png, svg, pdf).
        runs: The runs; those of one name are told apart by numbers.
        keys: Names of numbers.
        axis: See :meth:`RunLog.series`.
        smooth: See :func:`smoothed`; the numbers themselves stay visible, pale. Learning rates,
            and curves of a few points, stay as they are.
        log: Whether the values have a logarithmic scale.
        title: Above all.

    Returns:
        The path.

    Raises:
        ConfigError: If no run has any of the keys, or the kind of picture is unknown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    columns = min(_COLUMNS, len(keys))
    rows = math.ceil(len(keys) / max(columns, 1))
    if not any(run.series(key)[0] for run in runs for key in keys):
        raise ConfigError(f'no run has a number named {list(keys)}')
    size = (max(4.2 * columns, 6.4), 3.0 * rows + 0.5)
    # Not pyplot: no global state, no display needed.
    figure = Figure(figsize=size, dpi=130, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    if path.suffix.lstrip('.').lower() not in canvas.get_supported_filetypes():
        raise ConfigError(f'{path}: a picture is one of .png, .svg, .pdf, .jpg')
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    names = _distinct([run.name for run in runs])
    for panel, key in zip(panels, keys, strict=False):
        panel.set_title(key, fontsize=9, loc='left')
        panel.set_xlabel(_LABELS[axis], fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25, linewidth=0.6)
        if log:
            panel.set_yscale('log')
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            places, values = run.series(key, axis)
            if not places:
                continue
            style = {'color': f'C{number % 10}', 'marker': '.' if len(places) < _MARKED else None}
            # A schedule has no noise, and a few validations are no curve.
            if smooth and len(places) >= _SMOOTHED and not key.endswith('lr'):
                panel.plot(places, values, color=style['color'], alpha=0.25, linewidth=0.8)
                values, style['marker'] = smoothed(values, smooth), None
            panel.plot(places, values, label=name, linewidth=1.3, **style)
    for panel in panels[len(keys) :]:
        panel.set_axis_off()
    # One legend for all panels: a run that lacks the first number may have the second.
    handles = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        shown,
        loc='outside lower left',
        ncols=max(1, min(len(shown), int(size[0] / 2.6))),
        fontsize=8,
        frameon=False,
    )
    if title:
        figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _distinct(names: Sequence[str]) -> list[str]:
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f'{name} ({names[: number + 1].count(name)})' if name in repeated else name
        for number, name in enumerate(names)
    ]
