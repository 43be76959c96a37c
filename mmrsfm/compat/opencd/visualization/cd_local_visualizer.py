# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws change maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine.dist import master_only
from mmseg.visualization import SegLocalVisualizer

from mmrsfm.compat.opencd.registry import VISUALIZERS


@VISUALIZERS.register_module()
class CDLocalVisualizer(SegLocalVisualizer):
    """mmseg's SegLocalVisualizer for change maps: plain colours, without names of classes.

    Args:
        name: Name of the instance.
        alpha: Opacity of the map over the picture: 1 shows the map alone.
        classes: Names of the classes; a run takes those of its dataset.
        palette: Their colours.
        **kwargs: As of mmseg's SegLocalVisualizer (``vis_backends``, ``save_dir``, ...).
    """

    def __init__(
        self,
        name: str = 'visualizer',
        alpha: float = 1.0,
        classes: Sequence[str] = ('unchanged', 'changed'),
        palette: Sequence[Sequence[int]] = ((0, 0, 0), (255, 255, 255)),
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, alpha=alpha, **kwargs)
        # Not by mmseg's __init__, which takes one for the other.
        self.set_dataset_meta(classes=list(classes), palette=[list(colour) for colour in palette])

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        image_from_to: Sequence[np.ndarray] | None = None,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        **kwargs: Any,
    ) -> None:
        """Draws a sample and hands it to all backends.

        Args:
            name: Name of the picture.
            image: The canvas, uint8 (H, W, 3) in RGB.
            image_from_to: The two dates; the map is drawn on each of them as well.
            data_sample: With ``gt_sem_seg`` and ``pred_sem_seg``.
            draw_gt: Whether to draw the map that is given.
            draw_pred: Whether to draw the map that is predicted, to the right of it.
            show: Whether to open a window instead.
            wait_time: Seconds for which it stays.
            out_file: Write to this file instead.
            step: Step of the run.
            **kwargs: Not used; mmseg's visualizer has more options.
        """
        wanted = [
            key
            for key, draw in (('gt_sem_seg', draw_gt), ('pred_sem_seg', draw_pred))
            if draw and data_sample is not None and key in data_sample
        ]
        drawn = self._draw(image, data_sample, wanted)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(drawn), out_file)
            return
        dates = [self._draw(one, data_sample, wanted) for one in image_from_to or ()]
        self.set_image(drawn)
        self.add_image(name, drawn, *dates, step=step)

    @master_only
    def add_image(
        self,
        name: str,
        image: np.ndarray,
        image_from: np.ndarray | None = None,
        image_to: np.ndarray | None = None,
        step: int = 0,
    ) -> None:
        """Hands pictures, uint8 (H, W, 3) in RGB, to all backends."""
        dates = {} if image_from is None else {'image_from': image_from, 'image_to': image_to}
        for backend in self._vis_backends.values():
            backend.add_image(name, image, step=step, **dates)

    def _draw(self, image: np.ndarray, data_sample: Any, keys: Sequence[str]) -> np.ndarray:
        classes = self.dataset_meta['classes']
        palette = self.dataset_meta['palette']
        pictures = [
            self._draw_sem_seg(image, getattr(data_sample, key), classes, palette, False)
            for key in keys
        ]
        return np.concatenate(pictures, axis=1) if pictures else image
