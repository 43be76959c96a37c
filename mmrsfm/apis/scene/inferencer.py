# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From a trained model and a scene of any size to a map."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log

from mmrsfm.apis.scene.area import find_area
from mmrsfm.apis.scene.bands import Bands
from mmrsfm.apis.scene.cell_product import CellProduct
from mmrsfm.apis.scene.dense_product import DenseProduct
from mmrsfm.apis.scene.journal import Journal, digest
from mmrsfm.apis.scene.model import OBJECT_TASKS, SceneModel
from mmrsfm.apis.scene.object_product import ObjectProduct
from mmrsfm.apis.scene.pages import write_pages
from mmrsfm.apis.scene.products import Product
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.apis.scene.stream import Times, predict_tiles
from mmrsfm.checkpoints import file_digests
from mmrsfm.engine.atomic_io import atomic_write, check_writable
from mmrsfm.errors import ConfigError, DiskSpaceError
from mmrsfm.utils.progress import duration, progress
from mmrsfm.version import __version__

_SPARE = 64 << 20


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


class SceneInferencer:
    """A model of any task, for scenes of any size.

    The scene is read in windows, predicted in tiles that overlap, and written in blocks: memory
    does not grow with it. Finished blocks outlive a kill; the same call goes on. In a process
    group (:func:`mmrsfm.engine.launch.init_distributed`) the ranks share the blocks, by way of a
    folder for the results that all of them see.

    Args:
        config: A config file, or a loaded config.
        checkpoint: Its checkpoint, or an ONNX file of :mod:`mmrsfm.apis.exporting`.
        device: For example ``'cpu'`` or ``'cuda:0'``.
        amp: Whether to compute in mixed precision: float16 on a GPU, bfloat16 on a CPU.
        tile_size: Side of the tiles in pixels; ``None``: see :class:`SceneModel`.
        overlap: Pixels that neighbouring tiles share; ``None``: a quarter of a tile, none for
            classification.
        batch_size: Tiles at once.
        features: Instead of the task, the feature map of this level of the backbone.
        image_size: See :class:`SceneModel`.
        memory: Bytes that blended maps may take, besides model and tiles.

    Attributes:
        model: The :class:`SceneModel`.

    Raises:
        ConfigError: If the model is of no task that maps are made of.
        CheckpointError: If the checkpoint cannot be read, or is of another model.
    """

    def __init__(
        self,
        config: str | Path | Config | None,
        checkpoint: str | Path,
        device: str = 'cpu',
        amp: bool = False,
        tile_size: int | None = None,
        overlap: int | None = None,
        batch_size: int = 1,
        features: int | None = None,
        image_size: int | None = None,
        memory: int = 256 << 20,
    ) -> None:
        model = load_model(config, checkpoint, device, amp, features, tile_size, image_size)
        self._set(model, overlap, batch_size, memory)

    @classmethod
    def of(
        cls,
        model: Any,
        overlap: int | None = None,
        batch_size: int = 1,
        memory: int = 256 << 20,
    ) -> SceneInferencer:
        """An inferencer of a model that is there already.

        Args:
            model: A :class:`SceneModel`, or anything with its attributes and ``predict``.
            overlap: See the class.
            batch_size: See the class.
            memory: See the class.
        """
        made = cls.__new__(cls)
        made._set(model, overlap, batch_size, memory)
        return made

    def _set(self, model: Any, overlap: int | None, batch_size: int, memory: int) -> None:
        if batch_size < 1:
            raise ConfigError(f'batch_size is at least 1, got {batch_size}')
        self.model: Any = model
        size = self.model.tile_size
        default = 0 if self.model.task == 'classification' else size // 4
        self.overlap = default if overlap is None else overlap
        if not 0 <= self.overlap < size:
            raise ConfigError(f'the overlap is less than a tile of {size}, got {self.overlap}')
        self.batch_size = batch_size
        self.memory = memory
        self._model_settings: dict[str, Any] | None = None

    def __call__(
        self,
        scene: str | Path,
        *further: str | Path | None,
        out_dir: str | Path,
        aoi: str | Path | Sequence[float] | None = None,
        bands: Bands | Sequence[Bands | None] | None = None,
        band_names: Sequence[str] | None = None,
        on_error: str = 'raise',
        stretch: tuple[float, float] | None = None,
        resampling: str = 'bilinear',
        probabilities: bool = False,
        min_score: float = 0.3,
        formats: Sequence[str] | None = None,
        overwrite: bool = False,
        name: str | None = None,
        page: bool = False,
    ) -> SceneResult:
        """Makes the map of a scene.

        Args:
            scene: The scene, anything that GDAL reads.
            *further: The second date, or the further modalities, of models that take them; on
                another grid they are reprojected onto that of the first.
            out_dir: Folder for the results, which are named after the scene.
            aoi: See :func:`mmrsfm.apis.scene.area.find_area`.
            bands: See :class:`mmrsfm.apis.scene.source.SceneSource`.
            band_names: Likewise.
            on_error: Likewise.
            stretch: Likewise.
            resampling: Likewise.
            probabilities: Segmentation and change: write those of all classes too.
            min_score: Objects: the least score.
            formats: Objects and classes of cells: of ``'geojson'``, ``'gpkg'``, ``'dota'``;
                ``None``: all that fit.
            overwrite: Whether results, and parts, of another run are replaced.
            name: What results are named instead of the scene's.
            page: Whether to write an HTML page that needs no network, and a picture.

        Returns:
            The files and what was run. Where they are there already, of a run that was asked the
            same, nothing is done.

        Raises:
            DataError: If a scene cannot be used; see :class:`SceneSource`.
            ConfigError: If results of another run are in the way.
            DiskSpaceError: If the disk is too full, before anything is computed.
        """
        stem = name or Path(str(scene)).name.split('?')[0].rsplit('.', 1)[0]
        out = Path(out_dir)
        stated = band_names or self.model.file_bands
        options = (bands, stated, None, on_error, stretch, resampling)
        with SceneSource((scene, *further), self.model.inputs, *options) as source:
            source.area = find_area(aoi, source.height, source.width, source.crs, source.transform)
            product = self._product(source, probabilities, min_score, formats)
            settings = self._settings(source, product, aoi, bands, stated, on_error, stretch,
                                      resampling)  # fmt: skip
            return self._run(source, product, settings, out, stem, overwrite, page)

    def _run(
        self,
        source: SceneSource,
        product: Product,
        settings: dict[str, Any],
        out: Path,
        stem: str,
        overwrite: bool,
        page: bool,
    ) -> SceneResult:
        start = time.perf_counter()
        journal = Journal(out / f'.{stem}.parts', settings)
        main = dist.get_rank() == 0
        pending: list[Any] = [None]
        done: SceneResult | None = None
        failure: Exception | None = None
        if main:
            try:
                done = _finished(out, stem, product, settings, overwrite)
                check_writable(out)
                todo = []
                if done is None:
                    journal.open(overwrite)
                    todo = [unit for unit in product.units if not journal.has(unit)]
                    _check_space(out, product, len(todo))
                pending = [(done is not None, todo)]
            except Exception as error:
                failure = error  # the others must not wait
        dist.broadcast_object_list(pending)
        if failure is not None:
            raise failure
        if pending[0] is None:
            raise ConfigError('rank 0 could not begin: see its message')
        finished, todo = pending[0]
        if finished:
            return done or SceneResult({}, {})
        if main and not source.georeferenced:
            print_log(
                f'{source.paths[0]} has no georeference: results are in pixels.', logger='current'
            )
        times = Times()
        mine = _share(todo, dist.get_rank(), dist.get_world_size())
        tiles = product.begin(mine)
        predictions = predict_tiles(self.model, source.read, tiles, self.batch_size, times)
        shown = progress(predictions, stem, len(tiles)) if main else predictions
        stream = iter(shown)
        for unit in mine:
            arrays = product.compute(unit, stream, times)
            begin = time.perf_counter()
            # All so far: what was read ahead is not read again after a kill.
            journal.write(unit, arrays, source.unreadable)
            times.writing += time.perf_counter() - begin
        for _ in stream:
            pass  # the last line of the progress
        if not main:
            return SceneResult({}, {})
        journal.wait_for(product.units)
        begin = time.perf_counter()
        outputs = product.write(journal, out, stem)
        if page:
            scenes = [path for path in source.paths if path is not None]
            model = self.model
            outputs |= write_pages(
                out, stem, scenes, product.region, product.names, model.palette, product.objects,
                outputs.get('map'), self._facts(times), source.file_bands,
            )  # fmt: skip
        times.writing += time.perf_counter() - begin
        info = self._info(source, product, journal, settings, times, start, outputs)
        outputs['report'] = out / f'{stem}.json'
        atomic_write(outputs['report'], json.dumps(info, indent=1, default=str).encode())
        journal.remove()
        _say(info)
        return SceneResult(outputs, info)

    def _facts(self, times: Times) -> dict[str, Any]:
        return {
            'Model': Path(self.model.checkpoint).name,
            'Task': self.model.task.replace('_', ' '),
            'Tiles': f'{times.tiles} of {self.model.tile_size} px, overlap {self.overlap} px',
        }

    def _product(
        self,
        source: SceneSource,
        probabilities: bool,
        min_score: float,
        formats: Sequence[str] | None,
    ) -> Product:
        if self.model.task in OBJECT_TASKS:
            return ObjectProduct(self.model, source, self.overlap, min_score, formats)
        if self.model.task == 'classification':
            return CellProduct(self.model, source, self.overlap, formats)
        return DenseProduct(self.model, source, self.overlap, self.memory, probabilities)

    def _settings(self, source: SceneSource, product: Product, *asked: Any) -> dict[str, Any]:
        """All that results depend on."""
        if self._model_settings is None:
            file = Path(self.model.checkpoint)
            self._model_settings = {
                'checkpoint': file_digests(file)['sha256'] if file.is_file() else str(file),
                'model': digest(self.model.settings),
            }
        return {
            **self._model_settings,
            'version': __version__,
            'scenes': [_identity(path) for path in source.paths if path is not None],
            'asked': list(asked),
            'tile_size': self.model.tile_size,
            'overlap': self.overlap,
            'amp': self.model.amp,
            'task': self.model.task,
            **product.settings,
        }

    def _info(
        self,
        source: SceneSource,
        product: Product,
        journal: Journal,
        settings: dict[str, Any],
        times: Times,
        start: float,
        outputs: dict[str, Path],
    ) -> dict[str, Any]:
        region = product.region
        seconds = time.perf_counter() - start
        megapixels = region.height * region.width / 1e6
        return {
            'task': self.model.task,
            'scenes': [path for path in source.paths if path is not None],
            'checkpoint': self.model.checkpoint,
            'classes': self.model.classes,
            'bands': source.bands_used,
            'crs': None if source.crs is None else source.crs.to_string(),
            'transform': list(source.transform)[:6] if source.georeferenced else None,
            'region': asdict(region),
            'tile_size': self.model.tile_size,
            'overlap': self.overlap,
            'tiles': times.tiles,
            'empty_tiles': times.empty,
            'ranks': dist.get_world_size(),
            'device': str(self.model.device),
            'seconds': round(seconds, 3),
            'seconds_per_megapixel': round(seconds / megapixels, 4),
            'times': {
                name: round(getattr(times, name), 3) for name in ('model', 'waiting', 'writing')
            },
            'waiting_share': round(times.waiting_share, 4),
            'unreadable': journal.notes(product.units),
            'outputs': {key: path.name for key, path in outputs.items()},
            **product.info,
            'digest': digest(settings),
            'settings': settings,
        }  # fmt: skip


def load_model(
    config: str | Path | Config | None,
    checkpoint: str | Path,
    device: str = 'cpu',
    amp: bool = False,
    features: int | None = None,
    tile_size: int | None = None,
    image_size: int | None = None,
) -> Any:
    """The model for a checkpoint: of torch, or of an ONNX file.

    Args:
        config: See :class:`SceneModel`; an ONNX file needs none.
        checkpoint: See :class:`SceneModel`; ``.onnx`` for ONNX.
        device: See :class:`SceneModel`.
        amp: See :class:`SceneModel`.
        features: See :class:`SceneModel`.
        tile_size: See :class:`SceneModel`.
        image_size: See :class:`SceneModel`.

    Raises:
        ConfigError: If a config is missing.
    """
    if str(checkpoint).endswith('.onnx'):
        from mmrsfm.apis.scene.onnx_model import OnnxModel

        return OnnxModel(checkpoint, device, amp, features, tile_size, image_size)
    if config is None:
        raise ConfigError(f'{checkpoint}: a config is needed beside it')
    return SceneModel(config, checkpoint, device, amp, features, tile_size, image_size)


def _share(units: Sequence[int], rank: int, ranks: int) -> list[int]:
    """Units that follow each other, for one rank: neighbours share what was computed."""
    return list(units[len(units) * rank // ranks : len(units) * (rank + 1) // ranks])


def _identity(path: str) -> list[Any]:
    """What tells a scene from another, or from itself after a change."""
    file = Path(path)
    if not file.is_file():
        return [path]
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


def _check_space(out: Path, product: Product, missing: int) -> None:
    """Raises before anything is computed that there is no room for."""
    parts = product.nbytes * missing // max(len(product.units), 1)
    need = parts + product.nbytes + _SPARE
    free = shutil.disk_usage(out).free
    if need > free:
        raise DiskSpaceError(
            f'{out}: the results may take {need / 1e9:.2f} GB before they are compressed (parts '
            f'and map), {free / 1e9:.2f} GB are free. Make room, choose another folder, a smaller '
            'area (aoi), or leave out probabilities'
        )


def _finished(
    out: Path, stem: str, product: Product, settings: dict[str, Any], overwrite: bool
) -> SceneResult | None:
    """The result of an earlier run that was asked the same."""
    if overwrite:
        return None
    report = out / f'{stem}.json'
    if not report.exists():
        there = [path for path in product.files(out, stem).values() if path.exists()]
        if there:
            raise ConfigError(
                f'{there[0]} is there, and nothing says what of: take another folder, or '
                'overwrite=True (--overwrite)'
            )
        return None
    try:
        info = json.loads(report.read_text(encoding='utf-8'))
        outputs = {key: out / name for key, name in info['outputs'].items()}
        same = info['digest'] == digest(settings)
    except (ValueError, KeyError, TypeError):
        same, outputs, info = False, {}, {}
    if not same:
        raise ConfigError(
            f'{report} is of a run with other settings: take another folder, or overwrite=True '
            '(--overwrite)'
        )
    if not all(path.exists() for path in outputs.values()):
        return None
    print_log(f'{stem}: done before, {report}', logger='current')
    return SceneResult({**outputs, 'report': report}, info)


def _say(info: dict[str, Any]) -> None:
    text = (
        f'{info["scenes"][0]}: {", ".join(info["outputs"].values())} in '
        f'{duration(info["seconds"])} ({info["seconds_per_megapixel"]} s per megapixel, '
        f'{info["waiting_share"]:.0%} waiting for data)'
    )
    if info['unreadable']:
        text += f'; {len(info["unreadable"])} block(s) could not be read and are no data'
    print_log(text, logger='current')
