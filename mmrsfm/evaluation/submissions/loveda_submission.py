# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of submissions to LoveDA's server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.submissions.base import write_zip
from mmrsfm.evaluation.submissions.label_map import LabelMapSubmission
from mmrsfm.registry import METRICS


@METRICS.register_module()
class LoveDASubmission(LabelMapSubmission):
    """Writes label images as LoveDA's server takes them, and their zip file.

    The server's labels are 0 (background) to 6 (agriculture), one less than those of the published
    label images, in which 0 is "no data". They are what a model predicts whose dataset has
    ``reduce_zero_label=True``; mmseg's ``IoUMetric(format_only=True)`` adds the one back, so that
    its files must be changed again before they are sent.

    Data: Wang et al., NeurIPS Datasets and Benchmarks 2021, arXiv 2110.08733. Example::

        test_evaluator = dict(type='mmrsfm.LoveDASubmission')
    """

    kind = 'LoveDA'
    default_prefix = 'loveda'
    num_classes = 7

    def write(self, folder: Path, image: str, labels: np.ndarray) -> Path:
        """See :meth:`LabelMapSubmission.write`."""
        count = len((self.dataset_meta or {}).get('classes') or ())
        if count and count != self.num_classes:
            raise ConfigError(
                f'LoveDASubmission: the dataset of the test has {count} classes, LoveDA '
                f'{self.num_classes}'
            )
        path = folder / f'{Path(image).stem}.png'
        Image.fromarray(labels.astype(np.uint8)).save(path)
        return path

    def compute_metrics(self, results: list) -> dict:
        """Zips what was written.

        Args:
            results: Names of the files, and of the images.

        Returns:
            ``images``: how many there are.
        """
        files = self.written(results)
        archive = write_zip(self.folder / 'loveda.zip', {file.name: file for file in files})
        self.finish(
            [*files, archive],
            f'{archive} ({len(files)} label images, 0 to 6) is to be uploaded as it is; the links '
            'of the two servers (semantic segmentation, domain adaptation) are at '
            'https://github.com/Junjue-Wang/LoveDA',
        )
        return {'images': len(files)}
