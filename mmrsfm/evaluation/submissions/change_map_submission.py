# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of change maps."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.submissions.label_map import LabelMapSubmission
from mmrsfm.registry import METRICS
from mmrsfm.utils.geotiff import write_class_map


@METRICS.register_module()
class ChangeMapSubmission(LabelMapSubmission):
    """Writes where something changed: white on black, one 8-bit image named like the first date.

    Example::

        test_evaluator = [dict(type='mmrsfm.CDMetric'), dict(type='mmrsfm.ChangeMapSubmission')]

    Args:
        out_dir: The folder, see :class:`mmrsfm.evaluation.submissions.base.Submission`.
        file_format: ``'png'``; ``'tif'``: GeoTIFF on the grid of the first date; ``'auto'``: that
            where the first date is georeferenced, otherwise PNG.
        **kwargs: ``collect_device``, ``collect_dir``, ``prefix``.

    Raises:
        ConfigError: If ``file_format`` is none of these.
    """

    kind = 'change maps'
    default_prefix = 'change_maps'

    def __init__(
        self, out_dir: str | None = None, file_format: str = 'auto', **kwargs: Any
    ) -> None:
        super().__init__(out_dir, **kwargs)
        if file_format not in ('png', 'tif', 'auto'):
            raise ConfigError(
                f"ChangeMapSubmission: file_format={file_format!r} is not 'png', 'tif' or 'auto'"
            )
        self.file_format = file_format

    def write(self, folder: Path, image: str, labels: np.ndarray) -> Path:
        """See :meth:`LabelMapSubmission.write`."""
        white = np.where(labels == 1, 255, 0).astype(np.uint8)
        if self.file_format == 'tif' or (self.file_format == 'auto' and _has_crs(image)):
            path = folder / f'{Path(image).stem}.tif'
            return write_class_map(path, white, image, nodata=None)
        path = folder / f'{Path(image).stem}.png'
        Image.fromarray(white).save(path)
        return path

    def compute_metrics(self, results: list) -> dict:
        """Says where the maps are.

        Args:
            results: Names of the files, and of the images.

        Returns:
            ``images``: how many there are.
        """
        files = self.written(results)
        self.finish(files, f'{len(files)} maps, 0 and 255 (changed), are in {self.folder}')
        return {'images': len(files)}


def _has_crs(image: str) -> bool:
    if Path(image).suffix.lower() in ('.png', '.jpg', '.jpeg', '.bmp'):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            with rasterio.open(image) as source:
                return source.crs is not None
        except RasterioError:  # read by another library
            return False
