# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures, while it trains, of what a pretraining algorithm makes of its images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmrsfm.engine.hooks.visualization_hook import as_shown
from mmrsfm.engine.random_state import preserved_random_state
from mmrsfm.randomness import derive_seed, seed_generators
from mmrsfm.registry import HOOKS

_TIMES = 20  # pictures of a run, by default


@HOOKS.register_module()
class TrainingPictureHook(Hook):
    """Draws a few training images and what the model makes of them, again and again.

    For the pretraining algorithms: masked input, prediction and target of what they reconstruct
    (models with ``reconstruct``), and labels and predictions of all tasks (:class:`mmrsfm.MTP`).
    For other models it does nothing: their validation draws (:class:`mmrsfm.VisualizationHook`).
    The pictures go to the visualizer's backends, under ``training_pictures``: to TensorBoard, and
    to ``vis_data/vis_image``.

    The images are those of the first batch that the run sees, always with the same masks, so that
    one picture can be compared with the next; a resumed run takes those of its first batch. Nothing
    of the run depends on it: the model is in evaluation mode, and its random numbers are put back.
    What goes wrong in a picture is logged, once, and ends the pictures, not the run.

    Args:
        interval: Steps between pictures; ``None``: twenty pictures in a run; 0: none. The first
            step and the last are always drawn.
        num_samples: Images in a picture, taken evenly from the batch.
    """

    # After those that log and save: a step's numbers do not wait for its picture.
    priority = 'LOWEST'

    def __init__(self, interval: int | None = None, num_samples: int = 4) -> None:
        self.interval = interval
        self.num_samples = num_samples
        self._batch: Any = None
        self._off = interval == 0

    def before_train(self, runner: Runner) -> None:
        """Sees whether this model is drawn."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._off = self._off or not (hasattr(model, 'reconstruct') or hasattr(model, 'label_sets'))
        self._first = runner.iter
        self._every = self.interval or max(1, runner.max_iters // _TIMES)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps the images of the first batch, as the data loader gave them."""
        if not self._off and self._batch is None:
            self._batch = copy.deepcopy(some_samples(data_batch, self.num_samples))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draws, where it is time."""
        step = runner.iter + 1
        due = step % self._every == 0 or step == runner.max_iters or runner.iter == self._first
        if self._off or not due:
            return
        failed = False
        try:
            self._draw(runner, step)
        except Exception as error:  # a picture is not worth a run
            failed = True
            runner.logger.warning(
                f'TrainingPictureHook: no more pictures: {type(error).__name__}: {error}'
            )
        # Of all ranks: one that goes on alone would wait for the others in a sharded model.
        self._off = any(all_gather_object(failed))

    def _draw(self, runner: Runner, step: int) -> None:
        batch = copy.deepcopy(self._batch)
        _as_drawn(batch)
        with _aside(runner.model, derive_seed(runner.seed or 0, 'pictures')):
            # Every rank, though one draws: a wrapper may need them all (FSDP).
            samples = runner.model.val_step(batch)
        if not is_main_process():
            return
        from mmrsfm.visualization.training_pictures import draw_training_sample, stacked

        images = self._batch['inputs']
        if isinstance(images, Sequence) and _is_batch(images[0]):
            images = images[0]  # of two views
        pictures = [
            draw_training_sample(sample, as_shown(image, sample) if image.ndim == 3 else {})
            for image, sample in zip(images, samples, strict=False)
        ]
        runner.visualizer.add_image('training_pictures', stacked(pictures), step)


def some_samples(batch: Any, count: int) -> Any:
    """Takes a few samples, evenly, out of a batch.

    Args:
        batch: A dict with ``inputs`` (B, ...), a list of B images, or a list of such batches, and
            perhaps ``data_samples``.
        count: How many, at most.

    Returns:
        A batch of the same form.
    """
    if isinstance(batch, Mapping):
        return {key: some_samples(value, count) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and len(batch) and _is_batch(batch[0]):
        return [some_samples(part, count) for part in batch]
    if not isinstance(batch, list | tuple | torch.Tensor):
        return batch
    total = len(batch)
    chosen = [number * total // min(count, total) for number in range(min(count, total))]
    return batch[chosen] if isinstance(batch, torch.Tensor) else [batch[one] for one in chosen]


def _is_batch(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, torch.Tensor) and value.ndim > 3)


def _as_drawn(batch: Any) -> None:
    """Predictions are wanted in pixels of what the pipeline gave, not of the file."""
    for sample in batch.get('data_samples') or ():
        if hasattr(sample, 'set_metainfo') and 'img_shape' in sample:
            sample.set_metainfo({'ori_shape': sample.img_shape, 'scale_factor': (1.0, 1.0)})


@contextmanager
def _aside(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode and random numbers of its own; then all is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    with preserved_random_state(), torch.no_grad():
        try:
            model.eval()
            seed_generators(seed)
            if torch.cuda.is_available() and torch.cuda.is_initialized():
                torch.cuda.manual_seed(seed)
            yield
        finally:
            for module, training in modes:
                module.training = training
