# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Compares a map of classes with another on a part of its area: pixels that agree, mean IoU."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import rowcol
from rasterio.windows import Window


def compare_maps(found: str | Path, truth: str | Path) -> tuple[float, dict[int, float]]:
    """Compares two maps where the second one has labels.

    Args:
        found: The map.
        truth: Labels on the same pixels, of the same area or a part of it; its no-data value, and
            255, do not count.

    Returns:
        Share of the pixels that agree, and the IoU of each class, 0 to 1.
    """
    with rasterio.open(truth) as labels, rasterio.open(found) as source:
        wanted = labels.read(1)
        row, column = rowcol(source.transform, labels.transform.c, labels.transform.f, op=round)
        window = Window(int(column), int(row), labels.width, labels.height)
        got = source.read(1, window=window)
        counted = (wanted != 255) & (wanted != labels.nodata) & (got != source.nodata)
    wanted, got = wanted[counted], got[counted]
    scores = {}
    for label in np.unique(wanted).tolist():
        both = ((got == label) & (wanted == label)).sum()
        scores[label] = float(both / ((got == label) | (wanted == label)).sum())
    return float((got == wanted).mean()), scores


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('found', help='the map')
    parser.add_argument('truth', help='labels of its area, or of a part of it')
    args = parser.parse_args()
    agree, scores = compare_maps(args.found, args.truth)
    listed = ', '.join(f'{label}: {score:.1%}' for label, score in scores.items())
    mean = np.mean(list(scores.values()))
    print(f'{agree:.1%} of the pixels agree; mean IoU {mean:.1%} (of the classes: {listed})')


if __name__ == '__main__':
    main()
