# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Semantic segmentation of single images with a trained model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.errors import IncompleteLoadError


class SegmentationInferencer:
    """Runs a segmentation config and its checkpoint on images that fit into memory.

    Args:
        config: A config file, or a loaded config, of an mmseg model.
        checkpoint: The checkpoint of that config; every parameter must be in it.
        device: For example ``'cpu'`` or ``'cuda:0'``.

    Raises:
        IncompleteLoadError: If the checkpoint does not fit the model exactly.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, device: str = 'cpu'
    ) -> None:
        import mmseg.models  # noqa: F401  (registers the segmentors)
        from mmseg.registry import MODELS

        self.cfg = config if isinstance(config, Config) else Config.fromfile(config)
        init_default_scope('mmseg')
        model_cfg = copy.deepcopy(self.cfg.model)
        # As MMEngine's runner does.
        if self.cfg.get('data_preprocessor') is not None:
            model_cfg.setdefault('data_preprocessor', self.cfg.data_preprocessor)
        # The checkpoint brings every weight: nothing else is to be read.
        model_cfg.pop('init_cfg', None)
        model_cfg.backbone.pop('init_cfg', None)
        model: nn.Module = MODELS.build(model_cfg)
        state = read_checkpoint(checkpoint)
        try:
            # Not strict: that would list every name; this says first what is wrong.
            result = model.load_state_dict(state.get('state_dict', state), strict=False)
        except RuntimeError as error:
            raise IncompleteLoadError(
                f'{checkpoint} is of another model than that of the config: {error}'
            ) from error
        if result.missing_keys or result.unexpected_keys:
            raise IncompleteLoadError(
                f'{checkpoint} does not fit the model of the config: missing '
                f'{result.missing_keys[:5]}, left over {result.unexpected_keys[:5]}'
            )
        self.model: Any = model.to(device).eval()
        dataset = self.cfg.test_dataloader.dataset
        while 'pipeline' not in dataset and 'dataset' in dataset:
            dataset = dataset.dataset
        self._dataset = dataset
        self.pipeline = Compose([step for step in dataset.pipeline if not _loads_labels(step)])

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, where the dataset of the config states them."""
        metainfo = self._dataset.get('metainfo') or {}
        return list(metainfo['classes']) if 'classes' in metainfo else None

    @torch.no_grad()
    def __call__(self, image: str | Path) -> np.ndarray:
        """Segments one image.

        Args:
            image: Path of an image that the test pipeline of the config can read.

        Returns:
            Class numbers, uint8 (H, W); 255 where no band of the image has data.

        Raises:
            DataError: If the image cannot be read, or its bands are not those of the model.
        """
        info: dict[str, Any] = {'img_path': str(image), 'reduce_zero_label': False}
        if self._dataset.get('band_names') is not None:
            info['band_names'] = tuple(self._dataset.band_names)
        sample = self.pipeline(info)
        valid = getattr(sample['data_samples'], 'valid_mask', None)
        output = self.model.test_step(pseudo_collate([sample]))[0]
        classes = output.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
        if valid is not None:
            classes[~valid.any(0).cpu().numpy()] = 255
        return classes


def _loads_labels(step: Any) -> bool:
    name = str(step['type'])
    return 'Label' in name or 'LoadAnnotations' in name
