# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Registers images of two modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, ModuleDict
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.modalities import (
    ModalityInput,
    channel_columns,
    check_modalities,
    split_modalities,
)
from mmrsfm.models.pretext.views import packed, stack_valid
from mmrsfm.models.registration.matching import Matches
from mmrsfm.models.registration.robust_transform import TransformEstimate
from mmrsfm.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class RegistrationModel(BaseModel):
    """Two encoders, one for each modality, a dense matcher and a robust estimate of the map.

    Input is one tensor with the channels of both modalities behind each other, of one size (see
    :mod:`mmrsfm.layers.modalities`); they show the same ground, displaced against each other. The
    result is the homography from the first modality to the second, in pixels, (0, 0) being the
    centre of the first pixel.

    Training needs ``homography`` (3, 3) in every data sample, e.g. by
    :class:`mmrsfm.RandomHomography`. Missing data (NaN, or ``valid_mask`` of the samples) is
    neither matched nor trained.

    :meth:`predict` adds to each data sample: ``pred_homography``, (3, 3) float64 on the CPU, the
    identity where none was found; ``registered``, whether one was; ``failure``, why not, for
    people; ``pred_matches`` with ``source`` and ``target`` (K, 2), ``confidence`` (K,) and
    ``inlier`` (K,).

    The published system reports an RMSE on GUSO without code (facts: mars.md, section 5); this
    expression of the task is ours.

    Args:
        modalities: Number of channels of each, two of them: the first is registered to the second.
        backbone: Config of a backbone with feature maps (B, C, H, W), built twice, with
            ``in_channels`` of the modality where it states none; or a mapping from the modalities
            to such configs.
        neck: Makes one map of those of a backbone, built twice; or a mapping likewise. ``None``:
            the first map of the backbone. A neck that returns several gives its first.
        head: :class:`mmrsfm.MatchingHead`.
        estimator: :class:`mmrsfm.RobustTransform`.
        data_preprocessor: Usually :class:`mmrsfm.MultiBandDataPreprocessor`.
        init_cfg: See MMEngine.

    Raises:
        ConfigError: If there are not two modalities, or the parts do not fit together.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        estimator: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.modalities = check_modalities(modalities)
        if len(self.modalities) != 2:
            raise ConfigError(
                'RegistrationModel registers two modalities, the first to the second; got '
                f'{list(self.modalities)}'
            )
        columns = channel_columns(self.modalities)
        self.input_columns = {f'backbone.{name}': own for name, own in columns.items()}
        # MMEngine's, which initialises what is in it: torch's would leave init_cfg unread.
        self.backbone = ModuleDict()
        self.neck = ModuleDict()
        for name, channels in self.modalities.items():
            settings = _for_modality('backbone', backbone, name, self.modalities)
            settings.setdefault('in_channels', channels)
            self.backbone[name] = MODELS.build(settings)
            if neck is not None:
                settings = _for_modality('neck', neck, name, self.modalities)
                self.neck[name] = MODELS.build(settings)
        self.head = MODELS.build({'type': 'mmrsfm.MatchingHead', **(head or {})})
        self.estimator = TASK_UTILS.build({'type': 'mmrsfm.RobustTransform', **(estimator or {})})

    def extract_feat(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None
    ) -> tuple[dict[str, ModalityInput], dict[str, Tensor], int]:
        """Makes the map of each modality.

        Args:
            inputs: Shape (B, C, H, W).
            data_samples: May bring ``valid_mask``.

        Returns:
            The modalities, their features (B, D, h, w), and the stride in pixels.
        """
        parts = split_modalities(inputs, self.modalities, stack_valid(data_samples, inputs))
        features = {}
        for name, part in parts.items():
            maps = self.backbone[name](part.image)
            maps = self.neck[name](maps) if name in self.neck else maps
            features[name] = maps[0] if isinstance(maps, (tuple, list)) else maps
        shapes = {name: tuple(one.shape[1:]) for name, one in features.items()}
        if len(set(shapes.values())) > 1:
            raise ConfigError(f'the features of the modalities differ in shape: {shapes}')
        # Backbones round sizes up: the stride is the power of two next to the ratio.
        rows = next(iter(features.values())).shape[2]
        return parts, features, 2 ** max(0, round(math.log2(inputs.shape[2] / rows)))

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> Any:
        """Runs the model; see :meth:`mmengine.model.BaseModel.forward`.

        Args:
            inputs: Shape (B, C, H, W).
            data_samples: See :meth:`loss` and :meth:`predict`.
            mode: ``'tensor'``: the features of each modality; ``'loss'``, ``'predict'``.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs, data_samples)[1]
        if mode == 'loss':
            return self.loss(inputs, data_samples or ())
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ConfigError(f"mode={mode!r} is not 'tensor', 'loss' or 'predict'")

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Computes the losses of the head.

        Args:
            inputs: Shape (B, C, H, W).
            data_samples: Each with ``homography``, (3, 3).

        Raises:
            ConfigError: If a sample has none.
        """
        truth = packed(data_samples, 'homography')
        if truth is None:
            raise ConfigError(
                'training a registration needs the true homography of every sample: put '
                'mmrsfm.RandomHomography into the pipeline (or let the dataset read it), and '
                "algorithm_keys=('homography',) into mmrsfm.PackInputs"
            )
        parts, features, stride = self.extract_feat(inputs, data_samples)
        first, second = self.modalities
        return self.head.loss(
            features[first],
            features[second],
            [torch.as_tensor(one) for one in truth],
            stride,
            self._cells(parts[first], features[first], stride),
            self._cells(parts[second], features[second], stride),
        )

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None
    ) -> Sequence[DataSample]:
        """Registers each pair.

        Args:
            inputs: Shape (B, C, H, W).
            data_samples: To add the results to; ``None``: new ones.
        """
        if data_samples is None:
            data_samples = [DataSample() for _ in inputs]
        parts, features, stride = self.extract_feat(inputs, data_samples)
        first, second = self.modalities
        valid = [self._cells(parts[one], features[one], stride) for one in (first, second)]
        for number, sample in enumerate(data_samples):
            one, other = (None if mask is None else mask[number] for mask in valid)
            matches = self.head.match(
                features[first][number], features[second][number], stride, one, other
            )
            missing = [name for name in (first, second) if not parts[name].present[number]]
            self._add(sample, matches, missing)
        return data_samples

    def _add(self, sample: DataSample, matches: Matches, missing: Sequence[str]) -> None:
        source, target = matches.source.cpu().double(), matches.target.cpu().double()
        estimate: TransformEstimate = self.estimator(source.numpy(), target.numpy())
        found = estimate.homography is not None
        homography = torch.eye(3, dtype=torch.float64)
        if estimate.homography is not None:
            homography = torch.from_numpy(estimate.homography)
        failure = f'there are no data of {" and ".join(missing)}' if missing else estimate.failure
        sample.set_field(homography, 'pred_homography')
        sample.set_field(found, 'registered')
        sample.set_field('' if found else failure, 'failure')
        sample.set_field(
            InstanceData(
                source=source,
                target=target,
                confidence=matches.confidence.cpu(),
                inlier=torch.from_numpy(estimate.inliers),
            ),
            'pred_matches',
        )

    def _cells(self, part: ModalityInput, features: Tensor, stride: int) -> Tensor | None:
        """Which cells have data, (B, h * w); beyond the image, where a backbone pads, none has."""
        rows, columns = features.shape[2:]
        height, width = part.image.shape[2:]
        right, bottom = columns * stride - width, rows * stride - height
        if part.valid is None and right <= 0 and bottom <= 0:
            return None
        valid = torch.ones_like(part.image[:, :1]) if part.valid is None else part.valid.float()
        share = F.avg_pool2d(F.pad(valid, (0, right, 0, bottom)), stride)
        return share.flatten(1) >= self.head.min_valid - 1e-6


def _for_modality(
    what: str, settings: Mapping[str, Any], name: str, modalities: Mapping[str, int]
) -> dict[str, Any]:
    """The config of one modality, a copy: one for all has a type, else there is one for each."""
    if 'type' in settings:
        return dict(settings)
    unknown = set(settings) - set(modalities)
    if unknown or name not in settings:
        raise ConfigError(
            f'{what} must be one config with a type, or one for each of {list(modalities)}; got '
            f'the keys {list(settings)}'
        )
    return dict(settings[name])
