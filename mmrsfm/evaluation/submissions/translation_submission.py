# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of translated images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from mmrsfm.errors import ConfigError, DataError
from mmrsfm.evaluation.submissions.base import Submission, file_name
from mmrsfm.registry import METRICS

_TYPES = ('uint8', 'uint16', 'int16', 'float32')


@METRICS.register_module()
class TranslationSubmission(Submission):
    """Writes each translated image as a GeoTIFF, with the georeference of what it was made from.

    For images whose target is missing, or beside ``mmrsfm.TranslationMetric``::

        test_evaluator = dict(type='mmrsfm.TranslationSubmission')

    Args:
        out_dir: The folder, see :class:`mmrsfm.evaluation.submissions.base.Submission`.
        dtype: ``'uint8'``, ``'uint16'`` or ``'int16'``: values are rounded, and clipped to what it
            holds; or ``'float32'``.
        folders: How many of the folders above an image stay part of the names of the files: for
            images in several folders, some of the same name.
        **kwargs: ``collect_device``, ``collect_dir``, ``prefix``.

    Raises:
        ConfigError: For another type.
    """

    kind = 'translated images'
    default_prefix = 'translated_images'

    def __init__(
        self,
        out_dir: str | None = None,
        dtype: str = 'uint8',
        folders: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(out_dir, **kwargs)
        if dtype not in _TYPES:
            raise ConfigError(f'TranslationSubmission: dtype={dtype!r} is not one of {_TYPES}')
        self.dtype = dtype
        self.folders = folders

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Writes the images of one batch.

        Args:
            data_batch: Not used.
            data_samples: With ``img_path``, ``pred_image`` (C, H, W) and, where known, ``geo``.
        """
        for sample in data_samples:
            path = str(sample['img_path'])
            values = np.asarray(sample['pred_image'].detach().cpu())
            if not np.isfinite(values).all():
                raise DataError('a value that is not finite is predicted', path=path)
            name = file_name(path, '.tif', self.folders)
            self._write(self.folder / name, values, sample.get('geo') or {})
            self.results.append((name, path))

    def _write(self, path: Path, values: np.ndarray, geo: dict[str, Any]) -> None:
        if self.dtype != 'float32':
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        where: dict[str, Any] = {}
        if geo.get('transform') is not None:
            where['transform'] = rasterio.Affine(*geo['transform'])
            where['crs'] = geo.get('crs')
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + '.partial')
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', NotGeoreferencedWarning)
                with rasterio.open(
                    partial, 'w', driver='GTiff', count=len(values), dtype=self.dtype,
                    height=values.shape[1], width=values.shape[2], compress='deflate', **where,
                ) as out:  # fmt: skip
                    out.write(values.astype(self.dtype))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def compute_metrics(self, results: list) -> dict:
        """Says where the images are.

        Args:
            results: Names of the files, and of the images.

        Returns:
            ``images``: how many there are.

        Raises:
            DataError: If two images of one name went to one file.
        """
        origin: dict[str, str] = {}
        for name, image in results:
            if origin.setdefault(name, image) != image:
                raise DataError(
                    f'its translation overwrote that of {origin[name]}, which has the same name',
                    path=image,
                    hint='Keep the names of some folders above them: TranslationSubmission('
                    'folders=1)',
                )
        files = [self.folder / name for name in sorted(origin)]
        self.finish(files, f'{len(files)} images are in {self.folder}')
        return {'images': len(files)}
