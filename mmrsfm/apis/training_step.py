# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One training step of any config, in parts that can be timed."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmrsfm.engine import run_config
from mmrsfm.engine.samplers import EpochSampler
from mmrsfm.errors import ConfigError, DataError
from mmrsfm.models.classifiers import PairClassifier

PARTS = ('data_wait', 'forward', 'backward', 'optimizer', 'step')


class TrainingStep:
    """The model, the optimizer and the batches of a config, outside a Runner.

    Weights are initialised, never loaded: a time does not depend on their values.

    Args:
        cfg: A config of any task library.
        device: For example ``'cpu'`` or ``'cuda'``.
        batch_size: Images in a batch; default: that of ``train_dataloader``.
        data: ``'real'``: the training data loader, with its workers; ``'random'``: one random
            batch, made beforehand; ``'auto'``: real data where they can be found.
        input_shape: (C, H, W) of a random image; default: what the model is made for.
        amp: Mixed precision, as ``tools/train.py --amp``.

    Attributes:
        data: ``'real'`` or ``'random'``, as it turned out.
        batch_size: Images in a batch.
        note: Why random data were taken, or an empty string.

    Raises:
        ConfigError: If the config has no optimizer, or random inputs cannot be made for its model.
    """

    def __init__(
        self,
        cfg: Config,
        device: str = 'cpu',
        batch_size: int | None = None,
        data: str = 'auto',
        input_shape: tuple[int, int, int] | None = None,
        amp: bool = False,
    ) -> None:
        self.cfg = deepcopy(cfg)
        self.device = torch.device(device)
        self.note = ''
        if not self.cfg.get('optim_wrapper'):
            raise ConfigError('the config has no optim_wrapper: it does not train')
        run_config.register_scope(self.cfg.get('default_scope'))
        run_config.set_dataloader_defaults(self.cfg)
        if amp:
            run_config.enable_amp(self.cfg)
        elif str(self.cfg.optim_wrapper.get('type')).endswith(
            ('AmpOptimWrapper', 'BF16OptimWrapper')
        ):
            self._drop_amp()
        # Inner modules are built by bare names of the config's task library.
        with DefaultScope.overwrite_default_scope(self.cfg.get('default_scope', 'mmengine')):
            with quiet():
                self.model = self._build_model()
                self.optim_wrapper = build_optim_wrapper(self.model, self.cfg.optim_wrapper)
            self.batch_size = int(batch_size or self._loader_cfg().get('batch_size', 1))
            self.data = data
            self._batches = self._open(data, input_shape)

    def _drop_amp(self) -> None:
        """A config with mixed precision is measured in float32 unless --amp is given."""
        for name in ('loss_scale', 'dtype', 'use_fsdp'):
            self.cfg.optim_wrapper.pop(name, None)
        self.cfg.optim_wrapper['type'] = 'OptimWrapper'

    def _build_model(self) -> nn.Module:
        cfg = without_pretrained(self.cfg.model)
        if self.cfg.get('data_preprocessor') is not None:
            cfg.setdefault('data_preprocessor', self.cfg.data_preprocessor)
        model = MODELS.build(cfg)
        # Memory that was never written may hold denormals, which are slow.
        model.init_weights()
        return model.to(self.device).train()

    def _loader_cfg(self) -> Mapping[str, Any]:
        return self.cfg.get('train_dataloader') or {}

    def _open(self, data: str, shape: tuple[int, int, int] | None) -> Iterator[Any]:
        if data != 'random':
            try:
                batches = self._real_batches()
                self.data = 'real'
                return batches
            except (DataError, FileNotFoundError, ConfigError) as error:
                if data == 'real':
                    raise
                self.note = f'random data, because the real ones cannot be read: {error}'
        self.data = 'random'
        return self._random_batches(shape)

    def _real_batches(self) -> Iterator[Any]:
        if not self._loader_cfg():
            raise ConfigError('the config has no train_dataloader')
        return real_batches(self._loader_cfg(), self.batch_size)

    def _random_batches(self, shape: tuple[int, int, int] | None) -> Iterator[Any]:
        shape = shape or infer_input_shape(self.cfg, self.model)
        batch = random_batch(self.model, self.batch_size, shape)

        def batches() -> Iterator[Any]:
            while True:
                # A new dictionary each time: preprocessors write into it.
                yield dict(batch)

        return batches()

    def run(self) -> dict[str, float]:
        """Makes one step.

        Returns:
            Seconds for each of :data:`PARTS`; ``step`` is the sum of the others. A model with a
            ``train_step`` of its own has only ``data_wait`` and ``step``.
        """
        times: dict[str, float] = {}
        clock = Clock(self.device)
        batch = next(self._batches)
        times['data_wait'] = clock.lap()
        if type(self.model).train_step is not BaseModel.train_step:  # type: ignore[attr-defined]
            self.model.train_step(batch, self.optim_wrapper)  # type: ignore[operator]
            times['step'] = times['data_wait'] + clock.lap()
            return times
        model: Any = self.model
        with self.optim_wrapper.optim_context(model):
            prepared = model.data_preprocessor(batch, True)
            losses = model._run_forward(prepared, mode='loss')
        loss, _ = model.parse_losses(losses)
        times['forward'] = clock.lap()
        self.optim_wrapper.backward(self.optim_wrapper.scale_loss(loss))
        times['backward'] = clock.lap()
        self.optim_wrapper.step()
        self.optim_wrapper.zero_grad()
        times['optimizer'] = clock.lap()
        times['step'] = sum(times.values())
        return times


def real_batches(loader_cfg: Mapping[str, Any], batch_size: int) -> Iterator[Any]:
    """The batches of a training data loader, epoch after epoch.

    Args:
        loader_cfg: The config of the data loader.
        batch_size: Images in a batch.

    Raises:
        ConfigError: If the data are less than one batch.
        DataError: If they cannot be read.
    """
    from mmrsfm.datasets.addressed import AddressedCollate, AddressedDataset

    cfg: Any = deepcopy(loader_cfg)
    cfg['batch_size'] = batch_size
    # As the training loops do.
    sampler = cfg.get('sampler') or {}
    if str(sampler.get('type')).endswith('MultiDatasetSampler'):
        sampler['batch_size'] = batch_size
    cfg['dataset'] = dict(type=AddressedDataset, dataset=cfg['dataset'], seed=0)
    loader = Runner.build_dataloader(cfg, seed=0)
    loader.collate_fn = AddressedCollate(loader.collate_fn)
    first = next(iter(loader), None)
    if first is None:
        raise ConfigError('the training set has less than one batch')
    del first
    if isinstance(loader.sampler, EpochSampler):
        # At the end of an epoch workers read nothing ahead: of a small set, much of the time.
        loader.sampler.infinite = True

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    return batches()


@contextmanager
def quiet() -> Iterator[None]:
    """MMEngine logs several lines for every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


class Clock:
    """A stop-watch that waits for the device.

    Args:
        device: What computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lap()

    def lap(self) -> float:
        """Seconds since the last call, or since the beginning."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        seconds = now - getattr(self, '_last', now)
        self._last = now
        return seconds


def infer_input_shape(cfg: Config, model: nn.Module) -> tuple[int, int, int]:
    """Returns the (C, H, W) that a model is made for.

    The size is the crop of the training pipeline, or the ``img_size`` of the backbone; the bands
    are those of the data preprocessor or of the backbone, else three.

    Raises:
        ConfigError: If the config gives no size.
    """
    backbone = cfg.model.get('backbone') or {}
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    channels = backbone.get('in_channels') or (3 if mean is None else int(mean.numel()))
    size: Any = None
    for transform in (cfg.get('train_dataloader') or {}).get('dataset', {}).get('pipeline') or []:
        if re.search('Crop', str(transform.get('type'))):
            # Named differently by each library; a scale may also be a range of areas.
            given = [transform.get(key) for key in ('crop_size', 'size', 'scale')]
            size = next((value for value in given if _is_size(value)), size)
    if not isinstance(model, PairClassifier):  # its backbone sees tiles of the images
        size = size or backbone.get('img_size')
    if size is None:
        raise ConfigError('the config gives no image size: say --input-shape C,H,W')
    height, width = (size, size) if isinstance(size, int) else size
    return int(channels), int(height), int(width)


def _is_size(value: Any) -> bool:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    return len(numbers) in (1, 2) and all(isinstance(number, int) for number in numbers)


def random_batch(
    model: nn.Module, batch_size: int, shape: tuple[int, int, int], seed: int = 0
) -> dict[str, Any]:
    """Makes a batch of random images with random labels, as a data loader would give it.

    Args:
        model: A pretraining algorithm or a classifier of mmpretrain, a segmentor of mmseg, or any
            with a method ``random_samples``, as :class:`mmrsfm.MTP`.
        batch_size: Number of images.
        shape: (C, H, W).
        seed: Seed.

    Returns:
        ``dict(inputs, data_samples)``: (B, C, H, W) float32, collated as mmpretrain's loaders do,
        or a list of (C, H, W), as mmseg's do, or two batches for a classifier of pairs.

    Raises:
        ConfigError: If the model is of another kind.
    """
    generator = torch.Generator().manual_seed(seed)
    count = 2 if isinstance(model, PairClassifier) else 1
    images = torch.randn(count, batch_size, *shape, generator=generator)
    preprocessor = getattr(model, 'data_preprocessor', None)
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    if mean is not None and std is not None:
        images = images * std.cpu().reshape(-1, 1, 1) + mean.cpu().reshape(-1, 1, 1)
    own: Any = getattr(model, 'random_samples', None)
    if own is not None:
        samples = own(batch_size, shape[1:], generator)
        return {'inputs': list(images[0]), 'data_samples': samples}
    samples = [_random_sample(model, shape, generator) for _ in range(batch_size)]
    is_segmentor = type(samples[0]).__name__ == 'SegDataSample'
    inputs = list(images) if count > 1 else images[0]
    return {'inputs': list(inputs) if is_segmentor else inputs, 'data_samples': samples}


def _random_sample(model: Any, shape: tuple[int, int, int], generator: torch.Generator) -> Any:
    # Only looked for where something else imported it: an mmpretrain config needs no mmseg.
    segmentors = sys.modules.get('mmseg.models.segmentors')
    if segmentors is not None and isinstance(model, segmentors.BaseSegmentor):
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        classes = model.decode_head.num_classes
        labels = torch.randint(classes, (1, *shape[1:]), generator=generator)
        sample = SegDataSample(metainfo=dict(img_shape=shape[1:], ori_shape=shape[1:]))
        sample.gt_sem_seg = PixelData(data=labels)
        return sample
    from mmpretrain.models import BaseClassifier, BaseSelfSupervisor
    from mmpretrain.structures import DataSample

    if isinstance(model, BaseSelfSupervisor):
        sample = DataSample()
        if hasattr(model, 'random_targets'):
            targets = model.random_targets(shape[1:], generator)
            sample.set_field(targets, 'targets', dtype=dict)
        return sample
    if isinstance(model, BaseClassifier):
        classes = model.head.num_classes
        return DataSample().set_gt_label(torch.randint(classes, (1,), generator=generator))
    raise ConfigError(
        f'random data cannot be made for a {type(model).__name__}: use the real ones (--data real)'
    )


def without_pretrained(cfg: Any) -> Any:
    """A copy of a model config without initialisers that read files."""
    if isinstance(cfg, dict):
        copy = type(cfg)({key: without_pretrained(value) for key, value in cfg.items()})
        init = copy.get('init_cfg')
        if isinstance(init, dict) and str(init.get('type')).endswith('Pretrained'):
            copy['init_cfg'] = None
        return copy
    if isinstance(cfg, list | tuple):
        return type(cfg)(without_pretrained(item) for item in cfg)
    return cfg
