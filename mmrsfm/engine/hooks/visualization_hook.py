# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws predictions on imagery with any number of bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmrsfm.registry import HOOKS

# Names of classes are written over the image: smaller ones are enlarged to about this.
_READABLE = 448
_TEXT = {'size': 9}


@HOOKS.register_module()
class VisualizationHook(Hook):
    """The visualisation hook for imagery of any kind, for mmseg's and mmpretrain's visualizers.

    mmseg's own hook reads the file again with OpenCV, and mmpretrain's takes the numbers of a
    sample for 8-bit colours; neither can show a GeoTIFF of 13 bands. This one draws what the
    pipeline loaded, as ``tools/browse_dataset.py`` does: natural colours where the names of the
    bands tell them, stretched between percentiles, invalid pixels hatched in red; the images of a
    pair (:class:`mmrsfm.PackImagePair`) beside each other, stretched alike. ``tools/test.py
    --show-dir`` uses it where a config names no other hook. A visualizer with
    ``add_multi_band`` (:class:`mmrsfm.RegistrationVisualizer`) gets the numbers of the sample
    instead of a picture.

    Args:
        enable: Whether to draw at all.
        interval: Draw every so many samples.
        show: Whether to open windows.
        wait_time: Seconds for which a window stays.
        out_dir: Folder for the pictures, ``{index}_{name of the image}.png``. ``None``: they go to
            the visualizer's backends.
        bands: Three bands, or one, by name or one-based number; ``None``: see above.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        enable: bool = False,
        interval: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | None = None,
        bands: Sequence[str | int] | None = None,
    ) -> None:
        self.enable = enable
        self.interval = max(1, interval)
        self.show = show
        self.wait_time = wait_time
        self.out_dir = out_dir
        self.bands = bands
        self._seen = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Counts the samples anew."""
        self._seen = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Counts the samples anew."""
        self._seen = 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | tuple | list | None = None,
        outputs: Sequence[Any] | dict | None = None,
    ) -> None:
        """Draws the samples of a batch."""
        self._draw(runner, data_batch, outputs, runner.iter)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | tuple | list | None = None,
        outputs: Sequence[Any] | dict | None = None,
    ) -> None:
        """Draws the samples of a batch."""
        self._draw(runner, data_batch, outputs, 0)

    def _draw(self, runner: Runner, data_batch: Any, outputs: Any, step: int) -> None:
        if not self.enable:
            return
        images = data_batch['inputs']
        if isinstance(images[0], (list, tuple)):
            images = images[0]  # test-time augmentation: the first view
        elif isinstance(images, (list, tuple)) and images[0].ndim == 4:  # batches of two dates
            images = torch.cat(list(images), dim=3)
        for image, sample in zip(images, outputs, strict=False):
            # Samplers deal the data set out to the ranks in turn.
            index = self._seen * get_world_size() + get_rank()
            self._seen += 1
            if index % self.interval:
                continue
            path = getattr(sample, 'img_path', None)
            path = path[0] if isinstance(path, (list, tuple)) else path
            name = f'{index:05d}' if path is None else f'{index:05d}_{Path(path).stem}'
            options: dict[str, Any] = {'show': self.show, 'wait_time': self.wait_time}
            if self.out_dir is not None:
                options['out_file'] = str(Path(self.out_dir) / f'{name}.png')
            visualizer: Any = runner.visualizer
            if hasattr(visualizer, 'add_multi_band'):
                shown = as_shown(image, sample)
                visualizer.add_multi_band(name, shown, sample, step=step, **options)
                continue
            picture = self._picture(image, sample)
            if hasattr(visualizer, 'visualize_cls'):
                factor = max(1, round(_READABLE / min(picture.shape[:2])))
                picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
                visualizer.visualize_cls(
                    picture, sample, name=name, step=step, text_cfg=_TEXT, **options
                )
                continue
            truth = _either(sample, 'gt_sem_seg', 'gt_depth_map')
            options['draw_gt'] = truth is not None and truth.shape == picture.shape[:2]
            visualizer.add_datasample(name, picture, data_sample=sample, step=step, **options)

    def _picture(self, image: torch.Tensor, sample: Any) -> np.ndarray:
        """The sample as uint8 RGB (H, W, 3), of the size that what is predicted refers to."""
        from mmcv.image import imresize

        from mmrsfm.visualization.samples import draw_image

        shown = as_shown(image, sample)
        # mmrsfm's loader states the scale; that of mmcv, which does not, gives BGR.
        bgr = getattr(sample, 'scale', None) is None
        picture = draw_image(shown, self.bands, bgr)
        predicted = _either(sample, 'pred_sem_seg', 'pred_depth_map')
        size = picture.shape[:2] if predicted is None else predicted.shape
        if getattr(sample, 'pred_instances', None) is not None:  # boxes: of the file
            size = getattr(sample, 'ori_shape', size)[:2]
        if tuple(size) != picture.shape[:2]:
            height, width = size
            picture = imresize(picture, (width, height), interpolation='nearest')
        return picture


def _either(sample: Any, *keys: str) -> Any:
    """A map of classes or of numbers, whichever the sample has."""
    return next((sample.get(key) for key in keys if key in sample), None)


def as_shown(image: torch.Tensor, sample: Any) -> dict[str, Any]:
    """The sample as :func:`mmrsfm.visualization.samples.draw_image` takes it.

    Args:
        image: (C, H, W).
        sample: Its data sample, with ``img_path``, ``band_names`` and ``valid_mask`` where known.
    """
    array = image.permute(1, 2, 0).cpu().numpy()
    shown: dict[str, Any] = {
        'img': array,
        'img_path': getattr(sample, 'img_path', None),
        'band_names': getattr(sample, 'band_names', None),
    }
    valid = getattr(sample, 'valid_mask', None)
    if valid is not None:  # on the padded batch
        valid = valid[:, : array.shape[0], : array.shape[1]]
        shown['valid_mask'] = valid.permute(1, 2, 0).cpu().numpy()
    return shown
