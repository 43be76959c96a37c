# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A trained model of any task, as a function from tiles to predictions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmrsfm.apis.scene.pipeline import TilePipeline, enlarged, stated_size
from mmrsfm.apis.scene.tile_data import TileInput, TilePrediction
from mmrsfm.checkpoints import Adaptation, check_contract, load_pretrained, read_checkpoint
from mmrsfm.checkpoints.traits import CONTRACT_KEY
from mmrsfm.contract import ImageryContract
from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError, IncompleteLoadError

OBJECT_TASKS = ('detection', 'rotated_detection', 'instance_segmentation')
DENSE_TASKS = ('segmentation', 'change_detection', 'height', 'translation')
TASKS = (*DENSE_TASKS, *OBJECT_TASKS, 'classification', 'features')
_LEAST_TILE = 128


class SceneModel:
    """A config and its checkpoint, ready to take tiles.

    Args:
        config: A config file, or a loaded config, of any task.
        checkpoint: Its checkpoint: every parameter must be in it. For features any checkpoint that
            :func:`mmrsfm.checkpoints.load_pretrained` knows.
        device: For example ``'cpu'`` or ``'cuda:0'``.
        amp: Whether to compute in mixed precision: float16 on a GPU, bfloat16 on a CPU. Of
            detectors only what comes before the heads: boxes and their suppression are float32.
        features: Instead of the predictions of its task, the feature map of this level of the
            backbone (-1: the last).
        tile_size: Side of the tiles in pixels of the scene; ``None``: what the pipeline, the test
            settings or the crops of the training say, at least 128 for dense tasks whose pipeline
            states no size.
        image_size: Where the pipeline resizes: the side of the images as they were before, in
            pixels; ``None``: as after it. Tiles of another side are resized by the same factor, so
            that a pixel of the ground keeps its scale.

    Attributes:
        task: One of :data:`TASKS`.
        cfg: The config.
        model: The module, in evaluation mode.
        inputs: What each scene gives, :class:`mmrsfm.apis.scene.pipeline.InputSpec`.
        classes: Names of the classes; ``None`` where the task has none or nobody says.
        palette: A colour (red, green, blue, 0 to 255) for each class; ``None``: not stated.
        contract: The imagery of the model; what is not stated is ``None``.
        tile_size: As given or found.
        threshold: Segmentation with one channel: the probability from which on a pixel is 1.
        multi_label: Classification: whether several classes may hold.
        file_bands: Names of all bands of the dataset's files, for scenes that name none.

    Raises:
        ConfigError: If the task is none of these, or the pipeline reads nothing that a scene can
            take the place of.
        IncompleteLoadError: If the checkpoint does not fit the model exactly.
        ContractError: If the checkpoint was trained on other imagery than the config states.
        CheckpointError: If the file cannot be read.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str = 'cpu',
        amp: bool = False,
        features: int | None = None,
        tile_size: int | None = None,
        image_size: int | None = None,
    ) -> None:
        self.cfg = config if isinstance(config, Config) else run_config.load_config(config)
        self.checkpoint = str(checkpoint)
        self.device = torch.device(device)
        self.amp = amp
        self.level = features
        content = read_checkpoint(checkpoint)
        scope = self.cfg.get('default_scope') or 'mmengine'
        run_config.register_scope(scope)
        with DefaultScope.overwrite_default_scope(scope):
            model: Any = self._build()
            self.task = 'features' if features is not None else find_task(model)
            self._load(model, content)
            self.model: Any = model.to(self.device).eval()
            if self.amp and self.task in OBJECT_TASKS:
                self._extract: Any = self.model.extract_feat
                self.model.extract_feat = self._mixed_features
            dataset = _test_dataset(self.cfg)
            steps = dataset.get('pipeline') or []
            native = image_size or stated_size(steps)
            self.tile_size = tile_size or native or self._crop_size()
            self.contract = _contract(model) or _contract_of(content) or ImageryContract()
            preprocessor = getattr(model, 'data_preprocessor', None)
            self.pipeline = TilePipeline(
                steps,
                self.tile_size / native if native else 1.0,
                self.contract.band_names,
                self.contract.num_bands or _len(getattr(preprocessor, 'mean', None)),
            )
        names = [one.name for one in self.pipeline.inputs]
        if self.task == 'segmentation' and names == ['first', 'second']:
            self.task = 'change_detection'
        if self.task == 'rotated_detection' and scope != 'mmrotate':
            self.task = 'detection'
        meta = _metainfo(dataset, content)
        classes, palette = meta.get('classes'), meta.get('palette')
        self.classes = [str(one) for one in classes] if classes else None
        self.palette = [tuple(map(int, colour)) for colour in palette] if palette else None
        stated = dataset.get('band_names')
        self.file_bands = None if stated is None else tuple(stated)
        head = getattr(self.model, 'decode_head', None)
        self.threshold = float(getattr(head, 'threshold', None) or 0.5)
        head = getattr(self.model, 'head', None)
        self.multi_label = 'MultiLabel' in type(head).__name__

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What is read of each scene; see :class:`mmrsfm.apis.scene.pipeline.InputSpec`."""
        return self.pipeline.inputs

    @property
    def num_inputs(self) -> int:
        """How many scenes the model takes, 1 or 2."""
        return len(self.inputs)

    @property
    def band_names(self) -> tuple[tuple[str | int, ...] | None, ...]:
        """The bands of each input, by name or one-based number; ``None``: all of the file."""
        return tuple(one.bands for one in self.inputs)

    @property
    def channels(self) -> int | None:
        """Channels of the maps of dense tasks; ``None`` where only a prediction tells."""
        if self.task == 'height':
            return 1
        if self.task == 'translation':
            return int(self.model.modalities[self.model.target])
        head = getattr(self.model, 'decode_head', None)
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        return getattr(head, 'out_channels', None)

    @property
    def settings(self) -> dict[str, Any]:
        """All that predictions depend on besides the checkpoint, as JSON can hold it."""
        return {'config': self.cfg.to_dict(), 'level': self.level, 'amp': self.amp}

    @torch.no_grad()
    def predict(self, tiles: Sequence[TileInput]) -> list[TilePrediction]:
        """Runs the model on tiles of one size.

        Args:
            tiles: The tiles.

        Returns:
            A prediction for each of them. ``valid`` of the tiles loses what the pipeline takes
            for no data.

        Raises:
            DataError: If the bands are not those of the model.
        """
        samples = [self.pipeline(tile.rasters(), _name(tile)) for tile in tiles]
        for tile, sample in zip(tiles, samples, strict=True):
            _note_valid(tile, sample)
        data = pseudo_collate(samples)
        with self._autocast(self.amp and self.task not in OBJECT_TASKS):
            if self.task == 'features':
                maps = self._features(data)
                return [
                    TilePrediction(tile.tile, features=one.float().cpu())
                    for tile, one in zip(tiles, maps, strict=True)
                ]
            outputs = self.model.test_step(data)
        return [self._prediction(tile, output) for tile, output in zip(tiles, outputs, strict=True)]

    def _autocast(self, enabled: bool = True) -> Any:
        dtype = torch.float16 if self.device.type == 'cuda' else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=enabled)

    def _mixed_features(self, *inputs: Any) -> Any:
        """What mmcv's suppression of boxes takes: it knows no bfloat16."""
        with self._autocast():
            maps = self._extract(*inputs)
        return type(maps)(one.float() for one in maps)

    def _prediction(self, tile: TileInput, output: Any) -> TilePrediction:
        where = tile.tile
        if self.task in OBJECT_TASKS:
            return TilePrediction(where, instances=_full_precision(output.pred_instances.cpu()))
        if self.task == 'classification':
            return TilePrediction(where, scores=output.pred_score.float().cpu())
        if self.task == 'height':
            return TilePrediction(where, logits=output.pred_depth_map.data.float().cpu())
        if self.task == 'translation':
            return TilePrediction(where, logits=output.pred_image.float().cpu())
        logits = output.seg_logits.data.float().cpu()
        if len(logits) == 1:  # mmseg hands out the probability
            logits = torch.logit(logits, eps=1e-7)
        return TilePrediction(where, logits=logits)

    def _features(self, data: dict[str, Any]) -> torch.Tensor:
        images = self.model.data_preprocessor(data, False)['inputs']
        maps: Any = self.model.backbone(images)
        if isinstance(maps, (list, tuple)):
            assert self.level is not None
            if not -len(maps) <= self.level < len(maps):
                raise ConfigError(f'the backbone has {len(maps)} levels, asked for {self.level}')
            maps = maps[self.level]
        if not isinstance(maps, torch.Tensor) or maps.ndim != 4:
            shape = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
            raise ConfigError(
                f'the backbone {type(self.model.backbone).__name__} gives {shape}, no map (B, C, '
                "h, w): set model.backbone.out_type='featmap' by --cfg-options"
            )
        return maps

    def _build(self) -> nn.Module:
        config = copy.deepcopy(self.cfg.model)
        # As MMEngine's runner does.
        if self.cfg.get('data_preprocessor') is not None:
            config.setdefault('data_preprocessor', self.cfg.data_preprocessor)
        # The checkpoint brings every weight: nothing else is to be read.
        _drop_pretrained(config)
        return MODELS.build(config)

    def _load(self, model: nn.Module, content: dict[str, Any]) -> None:
        there, here = _contract_of(content), _contract(model)
        if there is not None and here is not None:
            check_contract(there, here, Adaptation(), self.checkpoint)
        if self.task == 'features':
            backbone = getattr(model, 'backbone', None)
            if not isinstance(backbone, nn.Module):
                raise ConfigError(f'{type(model).__name__} has no backbone to take features of')
            load_pretrained(backbone, content)
            return
        try:
            # Not strict: that would list every name; this says first what is wrong.
            result = model.load_state_dict(content.get('state_dict', content), strict=False)
        except RuntimeError as error:
            raise IncompleteLoadError(
                f'{self.checkpoint} is of another model than that of the config: {error}'
            ) from error
        if result.missing_keys or result.unexpected_keys:
            raise IncompleteLoadError(
                f'{self.checkpoint} does not fit the model of the config: missing '
                f'{result.missing_keys[:5]}, left over {result.unexpected_keys[:5]}'
            )

    def _crop_size(self) -> int:
        """A side for configs whose test pipeline takes images as they are."""
        test_cfg = self.cfg.model.get('test_cfg') or {}
        pipelines = _train_dataset(self.cfg).get('pipeline') or []
        preprocessor = self.cfg.model.get('data_preprocessor') or self.cfg.get('data_preprocessor')
        size = (
            stated_size([test_cfg])
            or stated_size(pipelines, last=True)
            or stated_size([preprocessor or {}])
            or self.cfg.model.get('backbone', {}).get('img_size')
            or 512
        )
        size = max(size) if isinstance(size, (list, tuple)) else int(size)
        return size if self.task in ('classification', *OBJECT_TASKS) else enlarged(
            size, _LEAST_TILE
        )  # fmt: skip


def find_task(model: nn.Module) -> str:
    """The task of a model, by its class.

    Args:
        model: A model of mmseg, mmdet, mmrotate, mmpretrain, Open-CD or mmrsfm.

    Returns:
        One of :data:`TASKS`; a segmentor of two images is ``'segmentation'`` here, and a detector
        with ``'angle'`` in its boxes ``'rotated_detection'``.

    Raises:
        ConfigError: If it is none of them.
    """
    names = {cls.__name__ for cls in type(model).__mro__}
    if 'DepthEstimator' in names:
        return 'height'
    if 'BaseSegmentor' in names:
        return 'segmentation'
    if 'BaseClassifier' in names:
        return 'classification'
    if 'ModalityTranslator' in names:
        return 'translation'
    if 'BaseDetector' in names:
        if getattr(model, 'with_mask', False) or hasattr(model, 'mask_head'):
            return 'instance_segmentation'
        return 'rotated_detection'
    raise ConfigError(
        f'{type(model).__name__} is no model of one of the tasks {TASKS}; of any model with a '
        'backbone, --features gives maps'
    )


def _len(value: Any) -> int | None:
    return None if value is None else len(value)


def _name(tile: TileInput) -> str:
    where = tile.tile
    return f'tile {where.index} at row {where.row}, column {where.col}'


def _note_valid(tile: TileInput, sample: Mapping[str, Any]) -> None:
    """What the loading step of the config takes for no data has no result either."""
    mask = getattr(sample.get('data_samples'), 'valid_mask', None)
    if mask is not None and tuple(mask.shape[-2:]) == tile.valid.shape:
        tile.valid &= mask.any(0).numpy()


def _full_precision(instances: Any) -> Any:
    """Instances without numbers of 16 bits, which NumPy does not all have."""
    for name, value in list(instances.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            instances[name] = value.float()
    return instances


def _drop_pretrained(config: Any) -> None:
    """Takes ``init_cfg`` and ``pretrained`` off all parts."""
    if isinstance(config, dict):
        for key in ('init_cfg', 'pretrained'):
            config.pop(key, None)
        for value in config.values():
            _drop_pretrained(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            _drop_pretrained(value)


def _contract(model: nn.Module) -> ImageryContract | None:
    return getattr(getattr(model, 'data_preprocessor', None), 'contract', None)


def _contract_of(content: Mapping[str, Any]) -> ImageryContract | None:
    meta = content.get('meta') or {}
    stated = meta.get(CONTRACT_KEY) if isinstance(meta, Mapping) else None
    return None if stated is None else ImageryContract.from_dict(stated)


def _dataset(cfg: Config, name: str) -> Any:
    """The innermost config of a loader's dataset; of several data sets the first."""
    dataset = (cfg.get(name) or {}).get('dataset') or {}
    while not dataset.get('pipeline'):
        inner = dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None)
        if inner is None:
            break
        dataset = inner
    return dataset


def _train_dataset(cfg: Config) -> Any:
    return _dataset(cfg, 'train_dataloader')


def _test_dataset(cfg: Config) -> Any:
    found = _dataset(cfg, 'test_dataloader') or _dataset(cfg, 'val_dataloader')
    return found or _train_dataset(cfg)


def _metainfo(dataset: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    """Classes and palette: of the checkpoint, else of the config, else of the dataset's class."""
    from mmengine.registry import DATASETS

    result: dict[str, Any] = {}
    kind = dataset.get('type')
    if isinstance(kind, str):
        try:
            kind = DATASETS.get(kind)
        except Exception:  # a missing library: its class cannot be asked
            kind = None
    sources = [
        (content.get('meta') or {}).get('dataset_meta'),
        dataset.get('metainfo'),
        getattr(kind, 'METAINFO', None),
    ]
    for source in sources:
        if isinstance(source, Mapping):
            for key, value in source.items():
                low = str(key).lower()
                if isinstance(value, (list, tuple)) and low in ('classes', 'palette'):
                    result.setdefault(low, value)
    return result
