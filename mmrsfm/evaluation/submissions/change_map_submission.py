# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of change maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmrsfm.evaluation.submissions.label_map import LabelMapSubmission
from mmrsfm.registry import METRICS


@METRICS.register_module()
class ChangeMapSubmission(LabelMapSubmission):
    """Writes where something changed: white on black, one 8-bit image named like the first date.

    Args:
        out_dir: The folder, see :class:`mmrsfm.evaluation.submissions.base.Submission`.
        suffix: Suffix of the files, ``'.png'`` as a rule.
        **kwargs: ``collect_device``, ``collect_dir``, ``prefix``.

    Example::

        test_evaluator = [dict(type='mmrsfm.CDMetric'), dict(type='mmrsfm.ChangeMapSubmission')]
    """

    kind = 'change maps'
    default_prefix = 'change_maps'

    def write(self, folder: Path, image: str, labels: np.ndarray) -> Path:
        """See :meth:`LabelMapSubmission.write`."""
        path = folder / f'{Path(image).stem}.png'
        Image.fromarray(np.where(labels == 1, 255, 0).astype(np.uint8)).save(path)
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
