# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One scene on its way to a map: what was asked, what is there already, what is reported."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.logging import print_log

from mmrsfm.apis.scene.area import Area
from mmrsfm.apis.scene.dense_product import DenseProduct
from mmrsfm.apis.scene.journal import Journal, digest
from mmrsfm.apis.scene.outputs import (
    check_scenes_safe,
    check_space,
    find_finished,
    planned_files,
    remove_stale,
)
from mmrsfm.apis.scene.products import Product
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.engine.atomic_io import atomic_write, check_writable
from mmrsfm.errors import DataError
from mmrsfm.utils.progress import duration


@dataclass
class SceneResult:
    """What a scene became.

    Attributes:
        outputs: Files by what they are: ``'map'``, ``'probabilities'``, ``'geojson'``, ...;
            ``'report'``, a JSON with :attr:`info`. Empty on other ranks than 0.
        info: What was run: model, scenes, bands, tiles, times, blocks that could not be read.
    """

    outputs: dict[str, Path]
    info: dict[str, Any]


@dataclass
class SceneRun:
    """One scene on its way to a map.

    Attributes:
        source: The scene.
        product: What is made of it.
        settings: All that the result depends on.
        out: Folder of the results.
        stem: What they are named.
        overwrite: Whether results of other runs are replaced.
        page: Whether a page is wanted.
        journal: The finished parts.
        done: The result of an earlier run that was asked the same.
        todo: Units that are not finished.
    """

    source: SceneSource
    product: Product
    settings: dict[str, Any]
    out: Path
    stem: str
    overwrite: bool
    page: bool

    def __post_init__(self) -> None:
        self.start = time.perf_counter()
        self.journal = Journal(self.out / f'.{self.stem}.parts', self.settings)
        self.done: SceneResult | None = None
        self.todo: list[int] = []

    def prepare(self) -> None:
        """Finds what is to be done, and whether it can be; on rank 0."""
        product = self.product
        made = product.files(self.out, self.stem).values()
        files = planned_files(self.out, self.stem, made, self.page)
        check_scenes_safe(files, self.source.paths)
        found = find_finished(self.out, self.stem, files, self.settings, self.overwrite)
        # A page that is asked for only now shows objects that the files alone do not hold.
        drawn = not self.page or isinstance(product, DenseProduct)
        if found is not None and (drawn or 'html' in found[0]):
            self.done = SceneResult(*found)
            return
        check_writable(self.out)
        self.journal.open(self.overwrite)
        self.todo = [unit for unit in product.units if not self.journal.has(unit)]
        parts = product.nbytes * len(self.todo) // max(len(product.units), 1)
        check_space(self.out, parts + product.nbytes)

    def report(self, outputs: dict[str, Path], info: dict[str, Any]) -> SceneResult:
        """Writes the report, the last of the files."""
        read = [Path(path) for path in self.source.paths if path is not None]
        remove_stale(self.out, self.stem, [*outputs.values(), *read])
        outputs['report'] = self.out / f'{self.stem}.json'
        atomic_write(outputs['report'], json.dumps(info, indent=1, default=str).encode())
        return SceneResult(outputs, info)


def agree(failure: Exception | None) -> None:
    """Ends a step in which any rank may have failed: then all do.

    Args:
        failure: What went wrong in this rank; ``None``: nothing.

    Raises:
        DataError: If another rank failed; the rank itself raises what it was given.
    """
    texts = dist.all_gather_object(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for rank, text in enumerate(texts):
        if text is not None:
            raise DataError(f'rank {rank} could not go on: {text}')


def area_identity(area: Area | None) -> list[Any] | None:
    """What tells an area from another, also where its file has changed meanwhile.

    Args:
        area: The area of interest; ``None``: everywhere.
    """
    if area is None:
        return None
    shapes = [one.wkb_hex for one in area.polygons or ()]
    return [*asdict(area.region).values(), digest({'polygons': shapes})]


def scene_identity(path: str) -> list[Any]:
    """What tells a scene from another, or from itself after a change.

    Args:
        path: The scene.
    """
    file = Path(path)
    if not file.is_file():
        return [path]
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


def say(info: dict[str, Any]) -> None:
    """Logs what was done.

    Args:
        info: The report.
    """
    text = (
        f'{info["scenes"][0]}: {", ".join(info["outputs"].values())} in '
        f'{duration(info["seconds"])} ({info["seconds_per_megapixel"]} s per megapixel, '
        f'{info["waiting_share"]:.0%} waiting for data)'
    )
    if info['unreadable']:
        text += f'; {len(info["unreadable"])} block(s) could not be read and are no data'
    if info['not_a_number']:
        text += (
            f'; for {info["not_a_number"]} pixel(s) or cell(s) the model gave no number (NaN): '
            'they are no data'
        )
    if not info['tiles'] and info['empty_tiles']:
        text += '; no pixel has data'
    print_log(text, logger='current')
