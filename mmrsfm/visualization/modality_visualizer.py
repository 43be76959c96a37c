# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Base of the visualizers that need the modalities of a sample, not one picture of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.visualization import Visualizer

from mmrsfm.layers.modalities import check_modalities
from mmrsfm.visualization.samples import draw_image

_GAP = 4  # pixels between panels
_TITLE = 18  # pixels for the title of a panel
_SMALL = 200  # panels that are smaller are enlarged to about this


class ModalityVisualizer(Visualizer):
    """Draws a sample of several modalities; :class:`mmrsfm.VisualizationHook` hands it the numbers.

    Args:
        modalities: Number of channels of each modality, in their order.
        name: See MMEngine's Visualizer.
        **kwargs: As of MMEngine's Visualizer.
    """

    def __init__(
        self, modalities: Mapping[str, int], name: str = 'visualizer', **kwargs: Any
    ) -> None:
        super().__init__(name, **kwargs)
        self.modalities = check_modalities(modalities)

    @abstractmethod
    def draw(self, shown: dict[str, Any], sample: Any) -> np.ndarray:
        """Draws one sample.

        Args:
            shown: ``img`` (H, W, C) as the pipeline gives it and, where something is invalid,
                ``valid_mask`` of the same shape.
            sample: The data sample with the predictions.

        Returns:
            uint8 RGB (H', W', 3).
        """

    def add_multi_band(
        self,
        name: str,
        shown: dict[str, Any],
        data_sample: Any,
        step: int = 0,
        out_file: str | None = None,
        show: bool = False,
        wait_time: float = 0.0,
    ) -> None:
        """Draws one sample to a file, a window or the backends.

        Args:
            name: Of the picture.
            shown: See :meth:`draw`.
            data_sample: See :meth:`draw`.
            step: Iteration, for the backends.
            out_file: A PNG; ``None``: the picture goes to the backends.
            show: Whether to open a window.
            wait_time: Seconds for which it stays.
        """
        picture = self.draw(shown, data_sample)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is None:
            self.add_image(name, picture, step)
            return
        Path(out_file).parent.mkdir(parents=True, exist_ok=True)
        _, encoded = cv2.imencode('.png', picture[..., ::-1])
        Path(out_file).write_bytes(encoded.tobytes())

    def part(self, shown: dict[str, Any], name: str) -> dict[str, Any]:
        """One modality of what is shown, as :func:`draw_image` takes it."""
        names = list(self.modalities)
        start = sum(self.modalities[one] for one in names[: names.index(name)])
        channels = slice(start, start + self.modalities[name])
        found = {'img': shown['img'][..., channels], 'img_path': shown.get('img_path')}
        if shown.get('valid_mask') is not None:
            found['valid_mask'] = shown['valid_mask'][..., channels]
        return found

    def picture(self, shown: dict[str, Any], name: str) -> np.ndarray:
        """One modality as uint8 RGB (H, W, 3)."""
        return draw_image(self.part(shown, name))


def beside(panels: list[tuple[str, np.ndarray]], enlarge: bool = True) -> np.ndarray:
    """Puts pictures of one height beside each other, with a title above each.

    Args:
        panels: Title and uint8 RGB (H, W, 3).
        enlarge: Whether small pictures are enlarged by a whole number.
    """
    factor = max(1, _SMALL // panels[0][1].shape[0]) if enlarge else 1
    columns = []
    for title, panel in panels:
        panel = panel.repeat(factor, axis=0).repeat(factor, axis=1)
        head = np.full((_TITLE, panel.shape[1], 3), 255, np.uint8)
        cv2.putText(
            head, title, (2, _TITLE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
        )
        columns.append(np.concatenate([head, panel]))
        columns.append(np.full((len(columns[-1]), _GAP, 3), 255, np.uint8))
    return np.concatenate(columns[:-1], axis=1)
