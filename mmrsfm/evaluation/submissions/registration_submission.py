# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of homographies."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import DataError
from mmrsfm.evaluation.submissions.base import Submission, file_name
from mmrsfm.registry import METRICS

TABLE = 'registrations.csv'


@METRICS.register_module()
class RegistrationSubmission(Submission):
    """Writes the homography of each pair that was registered, and a table of all.

    ``NAME.txt`` holds the 3 x 3 numbers that take pixels of the first image to the second, in the
    form that :class:`mmrsfm.GUSODataset` reads; ``registrations.csv`` has a row for each pair with
    the numbers of matches and inliers and, where there is none, why. For pairs without known
    homographies, or beside ``mmrsfm.RegistrationMetric``::

        test_evaluator = dict(type='mmrsfm.RegistrationSubmission')

    Args:
        out_dir: The folder, see :class:`mmrsfm.evaluation.submissions.base.Submission`.
        folders: How many of the folders above an image stay part of the names of the files: for
            images in several folders, some of the same name.
        **kwargs: ``collect_device``, ``collect_dir``, ``prefix``.
    """

    kind = 'homographies'
    default_prefix = 'homographies'

    def __init__(self, out_dir: str | None = None, folders: int = 0, **kwargs: Any) -> None:
        super().__init__(out_dir, **kwargs)
        self.folders = folders

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Writes the homographies of one batch.

        Args:
            data_batch: Not used.
            data_samples: With ``img_path`` and what :class:`mmrsfm.RegistrationModel` adds.
        """
        for sample in data_samples:
            path = sample['img_path']
            found = bool(sample['registered'])
            name = file_name(path, '.txt', self.folders)
            if found:
                buffer = io.StringIO()
                np.savetxt(buffer, np.asarray(sample['pred_homography']), fmt='%.17g')
                atomic_write(self.folder / name, buffer.getvalue().encode())
            matches = sample['pred_matches']
            counts = len(matches['confidence']), int(matches['inlier'].sum())
            self.results.append((path, name if found else '', *counts, sample['failure']))

    def compute_metrics(self, results: list) -> dict:
        """Writes the table, and says where everything is.

        Args:
            results: Image, file, matches, inliers and failure of each pair.

        Returns:
            ``pairs`` and ``registered``: how many there are.

        Raises:
            DataError: If two pairs of one name went to one file.
        """
        origin: dict[str, str] = {}
        for path, name, *_ in results:
            if name and origin.setdefault(name, path) != path:
                raise DataError(
                    f'its homography overwrote that of {origin[name]}, which has the same name',
                    path=path,
                    hint='Keep the names of some folders above them: RegistrationSubmission('
                    'folders=1)',
                )
        buffer = io.StringIO()
        table = csv.writer(buffer, lineterminator='\n')
        table.writerow(('image', 'file', 'matches', 'inliers', 'failure'))
        table.writerows(sorted(results))
        folder = self.folder
        atomic_write(folder / TABLE, buffer.getvalue().encode())
        files = [folder / name for name in sorted(origin)]
        self.finish(
            [folder / TABLE, *files], f'{len(files)} of {len(results)} pairs are in {folder}'
        )
        return {'pairs': len(results), 'registered': len(files)}
