# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of height maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmrsfm.errors import DataError
from mmrsfm.evaluation.submissions.label_map import LabelMapSubmission
from mmrsfm.registry import METRICS
from mmrsfm.utils.geotiff import write_float_map


@METRICS.register_module()
class HeightMapSubmission(LabelMapSubmission):
    """Writes predicted heights, one float32 GeoTIFF in metres on the grid of each image.

    For images without heights to compare with, or beside ``mmrsfm.HeightMetric``::

        test_evaluator = dict(type='mmrsfm.HeightMapSubmission')
    """

    kind = 'height maps'
    default_prefix = 'height_maps'
    field = 'pred_depth_map'

    def write(self, folder: Path, image: str, labels: np.ndarray) -> Path:
        """See :meth:`LabelMapSubmission.write`; of heights."""
        return write_float_map(folder / f'{Path(image).stem}.tif', labels, image)

    def compute_metrics(self, results: list) -> dict:
        """Says where the maps are.

        Args:
            results: Names of the files, and of the images.

        Returns:
            ``images``: how many there are.
        """
        files = self.written(results)
        self.finish(files, f'{len(files)} maps, in metres, are in {self.folder}')
        return {'images': len(files)}

    def _check(self, labels: np.ndarray, image: str) -> None:
        if not np.isfinite(labels).all():
            raise DataError('a height that is not finite is predicted', path=image)
