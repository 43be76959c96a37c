# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Predicts several modalities from one embedding of an image, and compares them with the truth.

MP-MAE: Nedungadi et al., "MMEarth: Exploring Multi-Modal Pretext Tasks for Geospatial
Representation Learning", ECCV 2024, arXiv 2405.02771. Written anew from a description of the
published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrsfm.errors import CheckpointError, ConfigError
from mmrsfm.layers.patches import gather_patches
from mmrsfm.models.heads.modality_targets import ModalityTarget, parse_targets
from mmrsfm.models.losses.modality_losses import MISSING, class_loss, patch_loss, vector_loss
from mmrsfm.models.losses.task_weighting import TaskWeighting
from mmrsfm.registry import MODELS


@MODELS.register_module()
class MultiPretextHead(BaseModule):
    """A linear predictor for each modality.

    Maps are predicted from the embedding of each patch, and only the masked patches count; so only
    those are predicted in :meth:`loss`. Classes and vectors are predicted from the mean of all
    patches, after one normalisation that they share.

    Of a patch, the predicted numbers are in the order pixel row, pixel column, channel (or class).
    The predictors of maps are 1x1 convolutions in the published model; here they are linear layers,
    whose weights are the same numbers without the two axes of length 1.

    Names of parameters: ``predictors.<modality>.{weight,bias}``, ``pooled_norm.{weight,bias}`` (if
    a class or vector is predicted), ``weighting.log_vars`` (of ``'uncertainty'``).

    Args:
        targets: What is predicted: from names to the fields of
            :class:`~mmrsfm.models.heads.modality_targets.ModalityTarget`, e.g.
            ``dict(sentinel2=dict(type='map', channels=12, norm_pix=True), biome=dict(type='class',
            classes=14), era5=dict(type='vector', channels=12))``.
        in_channels: Channels of the embedding.
        patch_size: Edge of a patch in pixels.
        weighting: Mode of :class:`mmrsfm.TaskWeighting`: ``'uncertainty'`` or ``'unweighted'``.
        missing: ``'ignored'``, or ``'as_published'``: missing pixels of maps of numbers are
            regressed to 0; see :mod:`mmrsfm.models.losses.modality_losses`.
        map_std: Standard deviation of the first weights of predictors of maps; published: 1.0 (as
            in FCMAE, whose ``trunc_normal_`` of convolutions has torch's default).
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the declarations are contradictory.
    """

    def __init__(
        self,
        targets: Mapping[str, Mapping[str, Any]],
        in_channels: int = 512,
        patch_size: int = 8,
        weighting: str = 'uncertainty',
        missing: str = 'ignored',
        map_std: float = 0.02,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if missing not in MISSING:
            raise ConfigError(f'missing is one of {MISSING}, got {missing!r}')
        self.targets: dict[str, ModalityTarget] = parse_targets(targets)
        self.patch_size = int(patch_size)
        self.missing = missing
        self.map_std = map_std
        self.predictors = nn.ModuleDict(
            {
                name: nn.Linear(
                    in_channels, target.width * (self.patch_size**2 if target.is_map else 1)
                )
                for name, target in self.targets.items()
            }
        )
        if not all(target.is_map for target in self.targets.values()):
            self.pooled_norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.weighting = TaskWeighting(list(self.targets), weighting)
        self._register_load_state_dict_pre_hook(self._assign_weights)

    def _assign_weights(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Finds the weight of each task by its name, where those of a file come in another order.

        Raises:
            CheckpointError: If the file does not say whose the weights are.
        """
        key, start = f'{prefix}weighting.log_vars', f'{prefix}predictors.'
        value = state_dict.get(key)
        if value is None or self.weighting.mode != 'uncertainty':
            return
        found = (name[len(start) :] for name in state_dict if name.startswith(start))
        names = list(dict.fromkeys(name.rsplit('.', 1)[0] for name in found))
        if names == list(self.targets):
            return
        if len(names) != len(value):
            raise CheckpointError(
                f'the checkpoint weights {len(value)} tasks ({key}) and predicts {names}: whose '
                'the weights are is not known. Leave them out, or give all predictors'
            )
        own = self.weighting.log_vars.detach().to(value, copy=True)
        for place, name in enumerate(self.targets):
            if name in names:
                own[place] = value[names.index(name)]
        state_dict[key] = own

    def init_weights(self) -> None:
        """Initialises as published, but for ``map_std``, then applies ``init_cfg``."""
        if not self.is_init:
            for name, target in self.targets.items():
                layer: Any = self.predictors[name]
                std = self.map_std if target.is_map else 0.02
                nn.init.trunc_normal_(layer.weight, std=std, a=-2.0, b=2.0)
                nn.init.zeros_(layer.bias)
        super().init_weights()

    def pooled(self, embedding: Tensor) -> Tensor:
        """What classes and vectors are predicted from: (B, L, D) to (B, D)."""
        return self.pooled_norm(embedding).mean(1)

    def _pooled_once(self, embedding: Tensor) -> Tensor | None:
        return self.pooled(embedding) if hasattr(self, 'pooled_norm') else None

    def predict(self, embedding: Tensor) -> dict[str, Tensor]:
        """Predicts everything.

        Args:
            embedding: Shape (B, L, D).

        Returns:
            For maps (B, L, P * P * channels), or classes; else (B, channels), or classes.
        """
        pooled = self._pooled_once(embedding)
        return {name: self.predict_one(name, embedding, pooled) for name in self.targets}

    def predict_one(self, name: str, embedding: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Predicts one modality, see :meth:`predict`; of maps, those patches that are given."""
        if self.targets[name].is_map:
            return self.predictors[name](embedding)
        return self.predictors[name](self.pooled(embedding) if pooled is None else pooled)

    def at(self, embedding: Tensor, ids: Tensor) -> Tensor:
        """The embedding (B, L, D) of some patches, ``ids`` (B, K): (B, K, D)."""
        return embedding.gather(1, ids[..., None].expand(-1, -1, embedding.shape[-1]))

    def loss(
        self, embedding: Tensor, ids_masked: Tensor, targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Computes the losses.

        Args:
            embedding: Shape (B, L, D).
            ids_masked: Shape (B, K), row-major numbers of the patches that were hidden.
            targets: For each modality (B, ...), see
                :class:`~mmrsfm.models.heads.modality_targets.ModalityTarget`.

        Returns:
            ``loss_<modality>``, which add up to the total, and where they are weighted the bare
            ``raw_<modality>``, without gradients.
        """
        hidden = self.at(embedding, ids_masked)
        pooled = self._pooled_once(embedding)
        predicted = {name: self.predict_one(name, hidden, pooled) for name in self.targets}
        return self.compare(predicted, ids_masked, targets)

    def compare(
        self, predicted: Mapping[str, Tensor], ids_masked: Tensor, targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Losses of what was predicted; maps: for the masked patches alone, (B, K, ...)."""
        losses, known = {}, {}
        with torch.autocast(ids_masked.device.type, enabled=False):
            for name, target in self.targets.items():
                loss, known[name] = self._compare_one(
                    target, predicted[name].float(), ids_masked, targets[name]
                )
                losses[name] = loss * target.loss_weight
            weighted = self.weighting(losses, known)
        found = {f'loss_{name}': value for name, value in weighted.items()}
        if self.weighting.mode == 'uncertainty':
            found |= {f'raw_{name}': value.detach() for name, value in losses.items()}
        return found

    def _compare_one(
        self, target: ModalityTarget, pred: Tensor, ids_masked: Tensor, truth: Tensor
    ) -> tuple[Tensor, Tensor]:
        if target.type == 'vector':
            return vector_loss(pred, truth, target.loss)
        if target.type == 'class':
            return class_loss(pred, truth)
        patch = (self.patch_size, self.patch_size)
        if target.type == 'class_map':
            patches = gather_patches(truth[:, None], ids_masked, patch, channels_last=True)
            return class_loss(pred.view(*patches.shape, target.classes), patches)
        patches = gather_patches(truth, ids_masked, patch, channels_last=True)
        return patch_loss(pred, patches, target.loss, target.norm_pix, self.missing)
