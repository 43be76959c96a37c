# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws the change maps that a run predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.fileio import get
from mmengine.runner import Runner
from mmseg.engine.hooks import SegVisualizationHook

from mmrsfm.compat.opencd.registry import HOOKS


@HOOKS.register_module()
class CDVisualizationHook(SegVisualizationHook):
    """mmseg's SegVisualizationHook for change maps: white what has changed, on black.

    A picture has the size of its images and their name, up to the first dot. While testing every
    map is drawn; while validating the first one of every ``interval``-th batch.

    Args:
        img_shape: Not used: a canvas has the size of its map. (Open-CD's configs give it.)
        draw_on_from_to_img: Also draw on the two dates.
        draw: Whether to draw at all.
        interval: See above.
        show: Open windows instead of writing files.
        wait_time: Seconds for which a window stays.
        out_dir: Write the pictures of a test into this folder; by default the backends of the
            visualizer decide (``CDLocalVisBackend``: ``vis_data/vis_image`` in the folder of the
            logs).
        test_interval: While testing, draw every n-th sample.
        backend_args: File backend of the images.
    """

    def __init__(
        self,
        img_shape: Sequence[int] | None = None,
        draw_on_from_to_img: bool = False,
        draw: bool = False,
        interval: int = 50,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | None = None,
        test_interval: int = 1,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(draw, interval, show, wait_time, backend_args)
        self.img_shape = img_shape
        self.draw_on_from_to_img = draw_on_from_to_img
        self.out_dir = out_dir
        self.test_interval = test_interval

    def before_test_epoch(self, runner: Runner) -> None:
        """Counts the samples anew."""
        self._test_index = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draws the first map of a batch."""
        iteration = runner.iter + batch_idx
        if self.draw and iteration % self.interval == 0:
            self._draw_sample(outputs[0], iteration)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Sequence[Any]
    ) -> None:
        """Draws the maps of a batch."""
        if not self.draw:
            return
        for sample in outputs:
            if self._test_index % self.test_interval == 0:
                self._draw_sample(sample, self._test_index, self.out_dir)
            self._test_index += 1

    def _draw_sample(self, sample: Any, step: int, out_dir: str | None = None) -> None:
        paths = sample.img_path
        name = Path(paths[0]).name.split('.')[0]
        shape = (*sample.pred_sem_seg.shape[-2:], 3)
        dates = None
        if self.draw_on_from_to_img:
            dates = [
                mmcv.imfrombytes(get(path, self.backend_args), channel_order='rgb')
                for path in paths
            ]
        self._visualizer.add_datasample(
            name,
            np.zeros(shape, np.uint8),
            dates,
            data_sample=sample,
            draw_gt=False,
            show=self.show,
            wait_time=self.wait_time,
            out_file=None if out_dir is None else str(Path(out_dir) / f'{name}.png'),
            step=step,
        )
