# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of registrations: matches, and a checkerboard of both images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from mmrsfm.errors import ConfigError
from mmrsfm.registry import VISUALIZERS
from mmrsfm.visualization.modality_visualizer import ModalityVisualizer, beside

_RIGHT, _WRONG = (60, 220, 60), (240, 60, 60)


@VISUALIZERS.register_module()
class RegistrationVisualizer(ModalityVisualizer):
    """Both images with the matches between them, and a checkerboard before and after.

    Matches that the map agrees with are green, others red; the most confident ones are drawn. The
    checkerboards alternate between the first image and the second: as it is, and brought to the
    first by the map found.

    Args:
        modalities: Number of channels of the two, in their order.
        name: See MMEngine's Visualizer.
        max_lines: Matches that are drawn.
        tiles: Tiles of the checkerboard along each edge.
        **kwargs: As of MMEngine's Visualizer.

    Raises:
        ConfigError: If there are not two modalities.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        name: str = 'visualizer',
        max_lines: int = 60,
        tiles: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(modalities, name, **kwargs)
        if len(self.modalities) != 2:
            raise ConfigError(
                f'RegistrationVisualizer draws two modalities, got {list(self.modalities)}'
            )
        self.max_lines = max_lines
        self.tiles = tiles

    def draw(self, shown: dict[str, Any], sample: Any) -> np.ndarray:
        """See :meth:`ModalityVisualizer.draw`."""
        first, second = (self.picture(shown, name) for name in self.modalities)
        height, width = first.shape[:2]
        # Drawn on both pictures side by side, then cut: a line runs from one to the other.
        factor = max(1, 200 // height)
        both = np.concatenate([first, second], axis=1).repeat(factor, axis=0)
        both = np.ascontiguousarray(both.repeat(factor, axis=1))
        matches = sample.pred_matches
        for number in reversed(range(min(self.max_lines, len(matches.confidence)))):
            start = _place(matches.source[number], factor)
            end = _place(matches.target[number] + matches.target.new_tensor([width, 0]), factor)
            colour = _RIGHT if bool(matches.inlier[number]) else _WRONG
            cv2.line(both, start, end, colour, 1, cv2.LINE_AA)
        found = bool(sample.registered)
        moved = second
        if found:
            inverse = np.linalg.inv(sample.pred_homography.cpu().numpy())
            moved = cv2.warpPerspective(second, inverse, (width, height))
        inliers = int(matches.inlier.sum())
        names = list(self.modalities)
        after = f'after, {inliers}/{len(matches.confidence)} matches' if found else 'no map found'
        return beside(
            [
                (names[0], both[:, : width * factor]),
                (names[1], both[:, width * factor :]),
                ('before', self._checkerboard(first, second, factor)),
                (after, self._checkerboard(first, moved, factor)),
            ],
            enlarge=False,
        )

    def _checkerboard(self, first: np.ndarray, second: np.ndarray, factor: int) -> np.ndarray:
        height, width = first.shape[:2]
        rows = np.arange(height)[:, None] * self.tiles // height
        columns = np.arange(width)[None] * self.tiles // width
        board = np.where(((rows + columns) % 2 == 0)[..., None], first, second)
        return board.repeat(factor, axis=0).repeat(factor, axis=1)


def _place(point: Any, factor: int) -> tuple[int, int]:
    x, y = ((point + 0.5) * factor).round().int().tolist()
    return x, y
