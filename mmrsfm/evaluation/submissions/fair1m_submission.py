# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writer of submissions to FAIR1M's server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.evaluation.submissions.base import write_zip
from mmrsfm.evaluation.submissions.dota_format import Detections, PatchName, corners, format_score
from mmrsfm.evaluation.submissions.dota_submission import DOTASubmission
from mmrsfm.evaluation.submissions.fair1m_format import (
    FAIR1MObject,
    Research,
    fair1m_xml,
    image_size,
)
from mmrsfm.registry import METRICS
from mmrsfm.utils.conversion import write_whole


@METRICS.register_module()
class FAIR1MSubmission(DOTASubmission):
    """Merges the detections of patches, and writes one XML file an image and their zip file.

    Every image that was tested gets a file, with or without detections. Example::

        test_evaluator = dict(
            type='mmrsfm.FAIR1MSubmission', img_dir='data/FAIR1M2.0/test/images',
            provider='University of X', author='our team')

    Args:
        out_dir: The folder, see :class:`mmrsfm.evaluation.submissions.base.Submission`; the files
            go into its subfolder ``test``.
        provider: The institution, as the server shows it.
        author: The team.
        pluginname: The name of the method, as the server shows it.
        version: ``research/version`` of the files.
        time: Year and month, such as ``'2024-02'``; ``None``: those of today.
        origin: ``source/origin`` of the files.
        img_dir: Folder with the original images, whose sizes the files state. ``None``: an image's
            size is where its patches end, which is too large where an image is smaller than the
            smallest window and was padded.
        img_suffix: Suffix of the original images.
        depth: Number of channels that the files state where there is no ``img_dir``.
        **kwargs: Those of :class:`DOTASubmission`; scores are written in full, as there.
    """

    default_prefix = 'fair1m'

    def __init__(
        self,
        out_dir: str | None = None,
        provider: str = '',
        author: str = '',
        pluginname: str = 'FAIR1M',
        version: str = '2.0',
        time: str | None = None,
        origin: str = 'GF2/GF3',
        img_dir: str | None = None,
        img_suffix: str = '.tif',
        depth: int = 3,
        **kwargs: Any,
    ) -> None:
        for name in ('task', 'ann_dir'):
            if kwargs.pop(name, None) is not None:
                raise ConfigError(f'FAIR1MSubmission has no {name}')
        if img_dir is not None and not Path(img_dir).is_dir():
            raise DatasetNotFoundError('is no folder with the original images', path=img_dir)
        super().__init__(out_dir, **kwargs)
        self.kind = 'FAIR1M'  # type: ignore[misc]
        self.research = Research(provider, author, pluginname, version, time, origin)
        self.img_dir = img_dir
        self.img_suffix = img_suffix
        self.depth = depth

    def compute_metrics(self, results: list) -> dict:
        """Merges and writes.

        Args:
            results: Detections of all patches.

        Returns:
            ``images`` and ``detections``, how many were written.
        """
        folder = self.folder / 'test'
        folder.mkdir(exist_ok=True)
        members: dict[str, Path] = {}
        count = 0
        for image, patches, merged in self._merged(results):
            objects = [
                FAIR1MObject(name, format_score(score, self.score_digits), polygon.tolist())
                for name, found in zip(self.classes, merged, strict=True)
                for polygon, score in zip(
                    corners(found[:, :-1], self.predict_box_type, self.vertex_order),
                    found[:, -1],
                    strict=True,
                )
            ]
            count += len(objects)
            text = fair1m_xml(
                f'{image}{self.img_suffix}', self._size(image, patches), objects, self.research
            )
            path = folder / f'{image}.xml'
            write_whole(path, text.encode())
            members[f'test/{path.name}'] = path
        archive = write_zip(self.folder / 'test.zip', members)
        if self.research.missing:
            print_log(
                f'FAIR1M: the files state no {" and no ".join(self.research.missing)}; set '
                "test_evaluator.provider='...' test_evaluator.author='...' to your team's",
                logger='current',
                level=30,
            )
        self.finish(
            [*members.values(), archive],
            f'{archive} ({count} detections in {len(members)} images) is to be uploaded as it is '
            'at https://www.gaofen-challenge.com/benchmark',
        )
        return {'images': len(members), 'detections': count}

    def _size(self, image: str, patches: Sequence[Detections]) -> tuple[int, int, int]:
        if self.img_dir is not None:
            return image_size(Path(self.img_dir) / f'{image}{self.img_suffix}')
        extents: dict[tuple[int | None, float], tuple[int, int]] = {}
        for patch in patches:
            place = PatchName.parse(patch.name)
            high, wide = patch.shape or (place.size or 0, place.size or 0)
            width, height = extents.get((place.size, place.rate), (0, 0))
            extents[place.size, place.rate] = (
                max(width, round((place.x + wide) / place.rate)),
                max(height, round((place.y + high) / place.rate)),
            )
        # At each scale the windows end where the image does, or beyond it if they are larger.
        width = min(extent[0] for extent in extents.values())
        return width, min(extent[1] for extent in extents.values()), self.depth
