# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the writers of label images share: one file an image, named like it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmrsfm.errors import DataError
from mmrsfm.evaluation.submissions.base import Submission


class LabelMapSubmission(Submission):
    """Writes the class map of each image when it is predicted; nothing waits in memory.

    Args:
        out_dir: The folder, see :class:`mmrsfm.evaluation.submissions.base.Submission`.
        **kwargs: ``collect_device``, ``collect_dir``, ``prefix``.

    Attributes:
        field: What of a data sample is written.
    """

    field: ClassVar[str] = 'pred_sem_seg'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Writes the maps of one batch.

        Args:
            data_batch: Not used.
            data_samples: With ``img_path`` (a path, or one for each date) and ``field``.
        """
        folder = self.folder
        for sample in data_samples:
            path = sample['img_path']
            first = str(path if isinstance(path, str | Path) else path[0])
            data = sample[self.field]['data']
            labels = data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else data
            labels = np.asarray(labels).squeeze(0) if np.ndim(labels) == 3 else np.asarray(labels)
            self._check(labels, first)
            self.results.append((self.write(folder, first, labels).name, first))

    @abstractmethod
    def write(self, folder: Path, image: str, labels: np.ndarray) -> Path:
        """Writes one map.

        Args:
            folder: Where to.
            image: Path of the (first) image.
            labels: Class numbers, (H, W).

        Returns:
            The file.
        """

    def _check(self, labels: np.ndarray, image: str) -> None:
        count = len((self.dataset_meta or {}).get('classes') or ()) or 255
        wrong = labels[(labels != 255) & ((labels >= count) | (labels < 0))]
        if wrong.size:
            raise DataError(
                f'class {wrong.flat[0]} is predicted, and the dataset has {count}', path=image
            )

    def written(self, results: Sequence[tuple[str, str]]) -> list[Path]:
        """The files, by name.

        Raises:
            DataError: If two images of one name went to one file.
        """
        origin: dict[str, str] = {}
        for name, image in results:
            if origin.setdefault(name, image) != image:
                raise DataError(
                    f'its map overwrote that of {origin[name]}, which has the same name',
                    path=image,
                    hint='Give the images names of their own',
                )
        return [self.folder / name for name in sorted(origin)]
