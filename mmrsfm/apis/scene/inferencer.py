# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From a trained model and a scene of any size to a map."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict
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
from mmrsfm.apis.scene.scene_run import (
    SceneResult,
    SceneRun,
    agree,
    area_identity,
    say,
    scene_identity,
)
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.apis.scene.stream import Times, predict_tiles
from mmrsfm.checkpoints import file_digests
from mmrsfm.errors import ConfigError
from mmrsfm.utils.progress import progress
from mmrsfm.version import __version__


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
        keep_cut: bool = False,
        merge_by: str = 'iou',
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
            keep_cut: Objects: whether pieces at borders of tiles stay that the tiles which see them
                whole have not found; see :func:`mmrsfm.apis.scene.merging.merge_objects`.
            merge_by: Objects: ``'iou'``, or ``'ios'``, intersection over the smaller area.

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
        options = (bands, band_names, None, on_error, stretch, resampling, self.model.file_bands)
        with contextlib.ExitStack() as stack:
            failure: Exception | None = None
            try:
                source = stack.enter_context(
                    SceneSource((scene, *further), self.model.inputs, *options)
                )
                size = (source.height, source.width)
                source.area = find_area(aoi, *size, source.crs, source.transform)
                product = self._product(
                    source, probabilities, min_score, formats, keep_cut, merge_by
                )
                asked = (bands, source.file_bands, on_error, stretch, resampling)
                settings = self._settings(source, product, *asked)
                run = SceneRun(source, product, settings, out, stem, overwrite, page)
                if dist.get_rank() == 0:
                    run.prepare()
            except Exception as error:
                failure = error  # the others must not wait
            agree(failure)
            return self._run(run)

    def _run(self, run: SceneRun) -> SceneResult:
        source, product, journal = run.source, run.product, run.journal
        main = dist.get_rank() == 0
        pending: list[Any] = [(run.done is not None, run.todo)]
        dist.broadcast_object_list(pending)
        finished, todo = pending[0]
        if finished:
            return SceneResult({}, {}) if run.done is None else self._drawn(run, run.done)
        if main and not source.georeferenced:
            print_log(
                f'{source.paths[0]} has no georeference: results are in pixels.', logger='current'
            )
        times = Times()
        try:
            self._compute(run, _share(todo, dist.get_rank(), dist.get_world_size()), times)
        except Exception as error:
            journal.fail(dist.get_rank(), error)
            raise
        if not main:
            return SceneResult({}, {})
        journal.wait_for(product.units)
        begin = time.perf_counter()
        outputs = product.write(journal, run.out, run.stem)
        if run.page:
            outputs |= self._pages(run, outputs, self._facts(times.tiles))
        times.writing += time.perf_counter() - begin
        info = self._info(source, product, journal, run.settings, times, run.start, outputs)
        result = run.report(outputs, info)
        journal.remove()
        say(info)
        return result

    def _compute(self, run: SceneRun, units: Sequence[int], times: Times) -> None:
        """Makes the units of this rank."""
        source, product = run.source, run.product
        tiles = product.begin(units)
        # Closed on every way out: its thread must not read on while the files are closed.
        with contextlib.closing(
            predict_tiles(self.model, source.read, tiles, self.batch_size, times)
        ) as predictions:
            main = dist.get_rank() == 0
            stream = iter(progress(predictions, run.stem, len(tiles)) if main else predictions)
            for unit in units:
                arrays = product.compute(unit, stream, times)
                begin = time.perf_counter()
                # All so far: what was read ahead is not read again after a kill.
                run.journal.write(unit, arrays, [*source.unreadable, *product.notes])
                times.writing += time.perf_counter() - begin
            for _ in stream:
                pass  # the last line of the progress

    def _drawn(self, run: SceneRun, done: SceneResult) -> SceneResult:
        """What was done before, with the page that is asked for only now."""
        if not run.page or 'html' in done.outputs:
            return done
        outputs = {key: path for key, path in done.outputs.items() if key != 'report'}
        outputs |= self._pages(run, outputs, self._facts(done.info['tiles']))
        names = {key: path.name for key, path in outputs.items()}
        return run.report(outputs, {**done.info, 'outputs': names})

    def _pages(
        self, run: SceneRun, outputs: dict[str, Path], facts: dict[str, Any]
    ) -> dict[str, Path]:
        source, product = run.source, run.product
        scenes = [path for path in source.paths if path is not None]
        return write_pages(
            run.out, run.stem, scenes, product.region, product.names, self.model.palette,
            product.objects, outputs.get('map'), facts, source.file_bands,
        )  # fmt: skip

    def _facts(self, tiles: int) -> dict[str, Any]:
        return {
            'Model': Path(self.model.checkpoint).name,
            'Task': self.model.task.replace('_', ' '),
            'Tiles': f'{tiles} of {self.model.tile_size} px, overlap {self.overlap} px',
        }

    def _product(
        self,
        source: SceneSource,
        probabilities: bool,
        min_score: float,
        formats: Sequence[str] | None,
        keep_cut: bool,
        merge_by: str,
    ) -> Product:
        if self.model.task in OBJECT_TASKS:
            return ObjectProduct(
                self.model, source, self.overlap, min_score, formats, keep_cut, merge_by
            )
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
            'scenes': [None if path is None else scene_identity(path) for path in source.paths],
            'area': area_identity(source.area),
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
        notes = journal.notes(product.units)
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
            'unreadable': [note for note in notes if 'path' in note],
            'not_a_number': sum(note.get('not_a_number', 0) for note in notes),
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
