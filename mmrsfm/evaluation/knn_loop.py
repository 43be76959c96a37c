# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""kNN classification of frozen features, at several image scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop
from mmengine.runner.amp import autocast
from torch import Tensor
from torch.utils.data import DataLoader

from mmrsfm.checkpoints import load_pretrained
from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.nearest_neighbors import METRICS, WEIGHTS, nearest_neighbors, vote
from mmrsfm.registry import LOOPS


@LOOPS.register_module()
class KNNLoop(TestLoop):
    """Classifies the test images by the labels of the nearest training images.

    The features of the training images (the *bank*) are computed once, at full size. Each test
    image is classified at every scale: it is shrunk on the device, encoded, and compared with the
    bank. This is the protocol of Scale-MAE (Reed et al., ICCV 2023), which Cross-Scale MAE (arXiv
    2401.15855) follows with 12.5, 25, 50 and 100 % of the size.

    The model is any of mmpretrain with ``extract_feat``, so any backbone: the last feature is
    taken, maps (B, D, H, W) are averaged. Nothing is trained. With several processes each encodes
    its part of the bank and of the test images.

    The checkpoint of the command line is loaded into the backbone by
    :func:`mmrsfm.checkpoints.load_pretrained`: any layout, and completely.

    The metrics get data samples with ``pred_score`` (share of the votes), ``pred_label`` and
    ``gt_label``; their names begin with ``scale_<percent>/`` if there are several scales, and with
    ``k_<k>/`` if there are several k.

    Args:
        runner: The runner.
        dataloader: The test images, in the order of the dataset.
        evaluator: For example mmpretrain's ``Accuracy`` and ``SingleLabelMetric``.
        bank_dataset: Config of the labelled training images, with the test pipeline. They are
            loaded as ``dataloader`` loads the test images.
        k: Number of neighbours, or several of them.
        metric: ``'cosine'`` or ``'euclidean'``.
        weights: ``'uniform'`` or ``'similarity'``, see
            :func:`mmrsfm.evaluation.nearest_neighbors.vote`.
        temperature: Of ``weights='similarity'``.
        scales: Factors of height and width, in (0, 1].
        restore_size: Whether a shrunk image is enlarged again: less detail at the same number of
            pixels, for backbones of a fixed size.
        chunk_size: Rows of the bank that are compared at a time.
        allow_missing: Names in the backbone that the checkpoint need not have, as patterns.
        adapt: What may differ between the imagery of the checkpoint and that of the test.
        fp16: Whether features are computed in half precision.

    Raises:
        ConfigError: If the arguments or the data do not fit together.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        bank_dataset: dict,
        k: int | Sequence[int] = 20,
        metric: str = 'cosine',
        weights: str = 'uniform',
        temperature: float = 0.07,
        scales: Sequence[float] = (1.0,),
        restore_size: bool = False,
        chunk_size: int = 65536,
        allow_missing: str | Sequence[str] = (),
        adapt: str | dict | None = None,
        fp16: bool = False,
    ) -> None:
        self.ks = [k] if isinstance(k, int) else sorted(set(k))
        self.scales = [float(scale) for scale in scales]
        if not self.ks or self.ks[0] < 1:
            raise ConfigError(f'KNNLoop: k must be at least 1, got {k}')
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ConfigError(f'KNNLoop: scales must lie in (0, 1], got {list(scales)}')
        if metric not in METRICS or weights not in WEIGHTS:
            raise ConfigError(
                f'KNNLoop: metric is one of {METRICS} and weights of {WEIGHTS}, got {metric!r} and '
                f'{weights!r}'
            )
        if not isinstance(dataloader, Mapping):
            raise ConfigError('KNNLoop: test_dataloader must be a config, not a DataLoader')
        named = dict(type='mmrsfm.AddressedDataset', seed=runner.seed)  # errors name their file
        bank = deepcopy({**dataloader, 'dataset': dict(dataset=bank_dataset, **named)})
        dataloader = {**dataloader, 'dataset': dict(dataset=dataloader['dataset'], **named)}
        super().__init__(runner, dataloader, evaluator, fp16)
        self.bank_dataloader = Runner.build_dataloader(bank, seed=runner.seed)
        self.metric = metric
        self.weights = weights
        self.temperature = temperature
        self.restore_size = restore_size
        self.chunk_size = chunk_size
        self.allow_missing = allow_missing
        self.adapt = adapt
        # MMEngine would load what fits and go on with a warning; here the runner finds nothing to
        # load, and run() does it instead.
        self.checkpoint: str | None = runner._load_from
        runner._load_from = None

    @property
    def model(self) -> Any:
        """The model without its distributed wrapper."""
        model = self.runner.model
        return model.module if is_model_wrapper(model) else model

    def run(self) -> dict[str, float]:
        """Runs the evaluation.

        Returns:
            The metrics.
        """
        if self.checkpoint is not None:
            self._load()
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        bank, labels = self._encode_bank()
        num_classes = self._num_classes(labels)
        found: dict[tuple[float, int], list[Tensor]] = {
            (scale, k): [] for scale in self.scales for k in self.ks
        }
        samples: list[Any] = []
        for number, batch in enumerate(self.dataloader):
            self.runner.call_hook('before_test_iter', batch_idx=number, data_batch=batch)
            images, batch_samples = self._prepare(batch)
            for scale in self.scales:
                similarities, rows = nearest_neighbors(
                    self._features(images, scale), bank, self.ks[-1], self.metric, self.chunk_size
                )
                for k in self.ks:
                    scores = vote(
                        similarities[:, :k],
                        labels[rows[:, :k]],
                        num_classes,
                        self.weights,
                        self.temperature,
                    )
                    found[scale, k].append(scores.cpu())
            samples += [sample.cpu() for sample in batch_samples]
            self.runner.call_hook(
                'after_test_iter', batch_idx=number, data_batch=batch, outputs=batch_samples
            )
        metrics: dict[str, float] = {}
        for (scale, k), parts in found.items():
            prefix = f'scale_{scale * 100:g}/' if len(self.scales) > 1 else ''
            prefix += f'k_{k}/' if len(self.ks) > 1 else ''
            metrics |= {
                prefix + name: value for name, value in self._evaluate(samples, parts).items()
            }
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    def _load(self) -> None:
        contract = getattr(getattr(self.model, 'data_preprocessor', None), 'contract', None)
        load_pretrained(
            self.model.backbone,
            str(self.checkpoint),
            allow_missing=self.allow_missing,
            adapt=self.adapt,
            contract=contract,
        )

    @torch.no_grad()
    def _encode_bank(self) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of all training images, on every process."""
        features, labels = [], []
        size = len(self.bank_dataloader.dataset)  # type: ignore[arg-type]
        print_log(f'kNN: encoding {size} training images', logger='current')
        for batch in self.bank_dataloader:
            images, samples = self._prepare(batch)
            features.append(self._features(images, 1.0))
            labels += [_label_of(sample) for sample in samples]
        if not features:
            raise ConfigError('KNNLoop: bank_dataset is empty on one of the processes')
        together = torch.cat(features)
        bank_labels = torch.tensor(labels, device=together.device)
        if size < self.ks[-1]:
            raise ConfigError(f'KNNLoop: k={self.ks[-1]}, but there are {size} training images')
        return gather_in_order(together, size), gather_in_order(bank_labels, size)

    def _prepare(self, batch: Any) -> tuple[Tensor, list[Any]]:
        prepared = self.model.data_preprocessor(batch, False)
        return prepared['inputs'], prepared['data_samples']

    @torch.no_grad()
    def _features(self, images: Tensor, scale: float) -> Tensor:
        """(B, C, H, W) to (B, D) float32."""
        images = shrink(images, scale, self.restore_size)
        with autocast(enabled=self.fp16):
            outputs = self.model.extract_feat(images)
        features = outputs[-1] if isinstance(outputs, tuple | list) else outputs
        if features.ndim == 4:
            features = features.mean((2, 3))
        if features.ndim != 2:
            raise ConfigError(
                f'KNNLoop: the model gives features of shape {tuple(features.shape)}, not one '
                "vector an image: set the backbone's out_type to 'cls_token' or 'avg_featmap'"
            )
        return features.float()

    def _num_classes(self, labels: Tensor) -> int:
        classes = getattr(self.dataloader.dataset, 'metainfo', {}).get('classes')
        found = int(labels.max()) + 1
        if classes is not None and found > len(classes):
            raise ConfigError(
                f'KNNLoop: the training images have {found} classes, the test images {len(classes)}'
            )
        return found if classes is None else len(classes)

    def _evaluate(self, samples: list[Any], parts: list[Tensor]) -> dict[str, float]:
        predicted = []
        for sample, score in zip(samples, torch.cat(parts), strict=True):
            copy = sample.clone()
            copy.set_pred_score(score).set_pred_label(score.argmax(0, keepdim=True))
            predicted.append(copy)
        self.evaluator.process(data_samples=predicted)
        return self.evaluator.evaluate(len(self.dataloader.dataset))  # type: ignore[arg-type]


def shrink(images: Tensor, scale: float, restore_size: bool = False) -> Tensor:
    """Shrinks images, bicubic with antialiasing.

    Args:
        images: Shape (B, C, H, W), normalised, so that invalid pixels are 0.
        scale: Factor of height and width, in (0, 1].
        restore_size: Whether to enlarge them to (H, W) again.
    """
    if scale == 1:
        return images
    height, width = images.shape[-2:]
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    images = F.interpolate(images, small, mode='bicubic', antialias=True)
    if restore_size:
        images = F.interpolate(images, (height, width), mode='bicubic', antialias=True)
    return images


def gather_in_order(local: Tensor, size: int) -> Tensor:
    """Collects the rows of all processes in the order of the dataset.

    Args:
        local: Rows of this process, (n, ...), as MMEngine's DefaultSampler deals them out without
            shuffling: process r has the samples r, r + world, r + 2 * world, ...
        size: Number of samples; what was added to give every process equally many is cut off.

    Raises:
        ConfigError: If a process has more rows than that.
    """
    world = get_world_size()
    if world == 1:
        return local[:size]
    most = -(-size // world)
    if len(local) > most:
        raise ConfigError(
            f'KNNLoop: a process got {len(local)} of {size} samples; every one must get its share: '
            "use sampler=dict(type='DefaultSampler', shuffle=False)"
        )
    padded = local.new_zeros(most, *local.shape[1:])
    padded[: len(local)] = local
    return torch.stack(all_gather(padded), dim=1).flatten(0, 1)[:size]


def _label_of(sample: Any) -> int:
    label = getattr(sample, 'gt_label', None)
    if label is None or label.numel() != 1:
        raise ConfigError('KNNLoop: every training image needs one class (gt_label)')
    return int(label)
