# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A config and its checkpoint as one file of ONNX that needs neither."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmrsfm.apis.exporting.graph import OPSET, TOLERANCE, Graph, relative_difference
from mmrsfm.apis.exporting.metadata import METADATA_KEY, OnnxMetadata
from mmrsfm.apis.exporting.networks import Network, check_task, check_windows
from mmrsfm.apis.exporting.preprocessing import (
    StoredValues,
    bands_of,
    measure_preprocessing,
    preprocessed,
    random_tile,
    to_images,
)
from mmrsfm.apis.scene.model import SceneModel
from mmrsfm.checkpoints import file_digests
from mmrsfm.engine import run_config
from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import ConfigError, ExportError
from mmrsfm.version import __version__

PARTS = ('model', 'backbone')
INPUTS = ('stored', 'normalized')


def export_onnx(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path,
    part: str = 'model',
    size: int | None = None,
    size_divisor: int | None = None,
    dynamic_batch: bool = True,
    input: str = 'stored',
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
) -> OnnxMetadata:
    """Writes a model to ONNX, after its numbers were compared with those of PyTorch.

    The graph takes the numbers that the files of a scene hold, float32, NaN where there are no
    data, and normalises them itself; what it must know is in its metadata
    (:class:`mmrsfm.apis.exporting.metadata.OnnxMetadata`). The scores, heights or maps that it
    gives are those of :class:`mmrsfm.apis.scene.model.SceneModel`: that is what is compared.

    Args:
        config: A config file, or a loaded config.
        checkpoint: Its checkpoint.
        out: The file to write.
        part: ``'model'``: segmentation, change detection, height regression or classification;
            ``'backbone'``: the maps of the backbone of any model.
        size: Side of the images in pixels; ``None``: that of the windows in which the config
            predicts, else of its tiles. Position tables and windows of attention are made for it.
        size_divisor: H and W of the images may be any multiples of this; ``None``: they are
            ``size``.
        dynamic_batch: Whether any number of images can be run at once.
        input: ``'stored'``, or ``'normalized'``: the graph takes what the data preprocessor makes.
            Such a file is for other programs, not for scenes.
        opset: Version of the operators of ONNX.
        tolerance: Largest difference ``max|a - b| / max(1, max|b|)``.

    Returns:
        The metadata, with the difference that was found.

    Raises:
        ExportError: If there is no graph of it, with the reason.
        CheckpointError: If the checkpoint cannot be read, or does not fit.
        ConfigError: For unknown options.
        MissingDependencyError: Without onnx, onnxscript and onnxruntime.
        OSError: If the file cannot be written; nothing is left of it then.
    """
    for name, value, known in (('part', part, PARTS), ('input', input, INPUTS)):
        if value not in known:
            raise ConfigError(f'{name} is one of {known}, got {value!r}')
    cfg = config if isinstance(config, Config) else run_config.load_config(config)
    level = -1 if part == 'backbone' else None
    scene = SceneModel(cfg, checkpoint, features=level, tile_size=size or _window(cfg))
    check_task(scene.task)
    side = scene.tile_size
    if part == 'model':
        check_windows(scene.model, side)
    if size_divisor is not None and (size_divisor < 1 or side % size_divisor):
        raise ConfigError(f'the size of the example, {side}, is no multiple of {size_divisor}')
    _release_memory_of_blocks(scene.model)
    network = Network(scene.model, scene.task, scene.multi_label)
    module: nn.Module
    measured: StoredValues | None = None
    if input == 'stored':
        measured = measure_preprocessing(scene, side)
        module = nn.Sequential(measured, network)
        module.forward = _chained(measured, network)  # type: ignore[method-assign]
        images = _stored_images(scene, measured, side)
        names = tuple(spec.name for spec in scene.inputs)
    else:
        module = network
        tiles = [random_tile(scene, side, seed) for seed in (0, 1)]
        images = preprocessed(scene, tiles)
        names = ('image',) if len(images) == 1 else tuple(f'image{n}' for n in range(len(images)))
        if len(images) > 1:
            raise ExportError('a model of two normalised images is not supported: input=stored')
    graph = Graph(
        module.eval(), images, names, _output_names(scene.task, module, images), dynamic_batch,
        size_divisor, opset, tolerance,
    )  # fmt: skip
    metadata = _metadata(scene, measured, graph, side, size_divisor, dynamic_batch)
    if measured is not None:
        error = _compare_with_scene_model(scene, metadata, graph)
        metadata = replace(metadata, error=max(metadata.error, error))
        if not metadata.error <= tolerance:
            raise ExportError(
                f'with the metadata that would be written, the predictions differ from those of '
                f'PyTorch by {metadata.error:.1e}, at most {tolerance:.0e} is accepted'
            )
    _label(graph.proto, metadata)
    atomic_write(out, graph.proto.SerializeToString())
    return metadata


def _window(cfg: Config) -> int | None:
    """The side of the windows in which a config predicts, where it does and they are square."""
    test_cfg = (cfg.get('model') or {}).get('test_cfg') or {}
    crop = tuple(test_cfg.get('crop_size') or ())
    sliding = test_cfg.get('mode') == 'slide' and len(set(crop)) == 1
    return int(crop[0]) if sliding else None


def _chained(first: StoredValues, second: Network) -> Any:
    def forward(*images: Tensor) -> tuple[Tensor, ...]:
        return second(first(*images))  # type: ignore[no-any-return]

    return forward


def _release_memory_of_blocks(model: nn.Module) -> None:
    """Parameters want no gradient: graphs that keep none are asked for none."""
    model.requires_grad_(False)


def _stored_images(scene: SceneModel, measured: StoredValues, size: int) -> list[Tensor]:
    plain = [spec.eight_bit or measured.fill is None for spec in scene.inputs]
    tiles = [random_tile(scene, size, seed, holes=seed == 1) for seed in (0, 1)]
    parts = [to_images(tile, plain) for tile in tiles]
    return [torch.cat(together) for together in zip(*parts, strict=True)]


def _output_names(task: str, module: nn.Module, images: list[Tensor]) -> tuple[str, ...] | None:
    single = {'classification': 'scores', 'height': 'height'}
    if task != 'features':
        return (single.get(task, 'logits'),)
    with torch.no_grad():
        count = len(module(*images))
    return tuple(f'features{number}' for number in range(count))


def _metadata(
    scene: SceneModel,
    measured: StoredValues | None,
    graph: Graph,
    size: int,
    size_divisor: int | None,
    dynamic_batch: bool,
) -> OnnxMetadata:
    backbone = type(getattr(scene.model, 'backbone', None)).__name__
    inputs = tuple(
        dict(
            name=spec.name,
            bands=None if spec.bands is None else list(spec.bands),
            count=bands_of(spec),
            eight_bit=spec.eight_bit,
            # A whole input may be missing where the model knows NaN.
            optional=spec.optional and measured is not None and math.isnan(measured.fill or 0),
        )
        for spec in scene.inputs
    )
    order = [] if measured is None else measured.order
    back = [order.index(channel) for channel in range(len(order))]
    contract = scene.contract.to_dict()
    return OnnxMetadata(
        task=scene.task,
        model=f'{type(scene.model).__name__} with {backbone}',
        inputs=inputs,
        size=size,
        stored_values=measured is not None,
        masked=measured is not None and measured.fill is not None,
        size_divisor=size_divisor,
        batch=None if dynamic_batch else 2,
        levels=tuple(range(len(graph.outputs))) if scene.task == 'features' else (),
        channels=int(graph.reference[-1].shape[1]),
        classes=None if scene.classes is None else tuple(scene.classes),
        palette=None if scene.palette is None else tuple(scene.palette),  # type: ignore[arg-type]
        contract=contract or None,
        mean=None if measured is None else tuple(measured.mean.flatten()[back].tolist()),
        std=None if measured is None else tuple(measured.std.flatten()[back].tolist()),
        threshold=scene.threshold,
        multi_label=scene.multi_label,
        file_bands=scene.file_bands,
        checkpoint=file_digests(scene.checkpoint)['sha256'],
        error=graph.error,
        version=__version__,
    )


def _compare_with_scene_model(scene: SceneModel, metadata: OnnxMetadata, graph: Graph) -> float:
    """The whole way of a tile, with a corner without data, through both."""
    from mmrsfm.apis.scene.onnx_model import OnnxModel

    tiles = [random_tile(scene, metadata.size, seed, holes=seed == 3) for seed in (2, 3)]
    content = graph.proto.__class__()
    content.CopyFrom(graph.proto)
    _label(content, metadata)
    levels = [None] if scene.task != 'features' else list(metadata.levels)
    worst = 0.0
    for level in levels:
        scene.level = level
        model = OnnxModel(content.SerializeToString(), features=level)
        try:
            wanted = scene.predict(tiles)
        except ConfigError:  # a vector, not a map: compared in the graph
            continue
        for found, other in zip(model.predict(tiles), wanted, strict=True):
            for name in ('logits', 'scores', 'features'):
                a, b = getattr(found, name), getattr(other, name)
                if a is None or b is None:
                    continue
                if name == 'logits' and len(b) == 1 and scene.task != 'height':
                    a, b = a.sigmoid(), b.sigmoid()  # what is compared is clipped
                worst = max(worst, relative_difference(a, b))
    return worst


def _label(proto: Any, metadata: OnnxMetadata) -> None:
    import onnx

    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_text()})
    proto.producer_name, proto.producer_version = 'mmrsfm', __version__
    proto.doc_string = f'{metadata.task}: {metadata.model}'
