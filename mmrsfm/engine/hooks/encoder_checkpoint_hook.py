# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a pretraining is for, by itself: the encoder of every checkpoint, without the rest."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from mmrsfm.checkpoints import describe_model, export_checkpoint, read_checkpoint
from mmrsfm.checkpoints.integrity import digest_path
from mmrsfm.engine.atomic_io import remove_with_digest, write_with_digest
from mmrsfm.engine.hooks.checkpoint_hook import ENCODERS_KEY
from mmrsfm.errors import CheckpointWriteError, ConfigError
from mmrsfm.registry import HOOKS

_PREFIX = 'encoder_'


@HOOKS.register_module()
class EncoderCheckpointHook(Hook):
    """Writes ``encoder_iter_5000.pth`` beside every ``iter_5000.pth``, and beside the best one.

    The file holds the weights of the backbone and what must travel with them (imagery contract,
    traits): no decoder, no optimizer, nothing to resume from. (The published encoder files of MTP
    carry the optimizer state of the whole model.) A fine-tuning names it in
    ``init_cfg=dict(type='mmrsfm.Pretrained', checkpoint=...)``. The weights are those of the
    checkpoint, with MMEngine's EMAHook the averaged ones.

    If the run was killed between the two files, the resumed run writes the second one. An encoder
    file is removed with its checkpoint (``max_keep_ckpts``), at the next one.

    Args:
        layout: Layout of the file: ``'mmrsfm'``, names with ``backbone.``, which every backbone
            has; or another that can be written, e.g. ``'mtp_encoder'`` for RVSA as MTP releases it.
        keep_all: Keep encoder files whose checkpoints are removed.

    Raises:
        ConfigError: Before training, if the model has no ``backbone``.
        CheckpointError: While training, if the layout has no place for the backbone.
        CheckpointWriteError: While training, if a file cannot be written.
    """

    priority = 'LOWEST'  # after the checkpoint hook

    def __init__(self, layout: str = 'mmrsfm', keep_all: bool = False) -> None:
        self.layout = layout
        self.keep_all = keep_all
        self._seen: set[str] = set()
        self._content: dict[str, Any] = {}

    def before_train(self, runner: Any) -> None:
        """Checks the model, and completes the checkpoints of the run that is resumed."""
        if not isinstance(getattr(_bare(runner.model), 'backbone', None), nn.Module):
            raise ConfigError(
                f'EncoderCheckpointHook: {type(_bare(runner.model)).__name__} has no backbone'
            )
        # A checkpoint does not know of its own encoder, which is written after it.
        known = list(runner.message_hub.runtime_info.get(ENCODERS_KEY, []))
        self._seen = set(_announced(runner))
        runner.message_hub.update_info(ENCODERS_KEY, list(dict.fromkeys([*known, *self._seen])))
        if is_main_process():
            for path in self._seen:
                if Path(path).exists() and not digest_path(encoder_path(path)).exists():
                    self._take(runner, read_checkpoint(path))
                    _write(encoder_path(path), self._bytes())

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Takes the encoder out of what is about to be written. On the master only."""
        self._take(runner, checkpoint)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Writes the encoder, if a checkpoint was written."""
        self._follow(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Writes the encoder, if a checkpoint was written."""
        self._follow(runner)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Writes the encoder, if this validation was the best."""
        self._follow(runner)

    def _follow(self, runner: Any) -> None:
        new = [path for path in _announced(runner) if path not in self._seen]
        if not new:
            return
        self._seen.update(new)
        hub = runner.message_hub
        written = list(hub.runtime_info.get(ENCODERS_KEY, []))
        if is_main_process():
            data = self._bytes()
            for path in new:
                _write(encoder_path(path), data)
            expired = [path for path in written if not Path(path).exists()]
            for path in [] if self.keep_all else expired:
                remove_with_digest(encoder_path(path))
        # With the next checkpoint, so that a resumed run goes on cleaning up.
        hub.update_info(ENCODERS_KEY, [path for path in written if Path(path).exists()] + new)

    def _take(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        state = {
            name: value.detach().cpu()
            for name, value in checkpoint['state_dict'].items()
            if name.startswith('backbone.')
        }
        content: dict[str, Any] = {'state_dict': state, 'meta': describe_model(_bare(runner.model))}
        if self.layout != 'mmrsfm':
            content = export_checkpoint(content, target=self.layout, source='mmrsfm').content
        meta = checkpoint['meta']
        content['meta'].update({name: meta[name] for name in ('epoch', 'iter') if name in meta})
        self._content = content

    def _bytes(self) -> bytes:
        buffer = io.BytesIO()
        torch.save(self._content, buffer)
        self._content = {}
        return buffer.getvalue()


def encoder_path(checkpoint: str | Path) -> Path:
    """Where the encoder of a checkpoint is written: ``epoch_3.pth`` -> ``encoder_epoch_3.pth``."""
    path = Path(checkpoint)
    # Not a suffix: whoever looks for the last of iter_*.pth must not find it.
    return path.with_name(f'{_PREFIX}{path.name}')


def _announced(runner: Any) -> Iterator[str]:
    """Checkpoints that the checkpoint hook says it has written: the last, and the best."""
    for key, value in runner.message_hub.runtime_info.items():
        if value and (key == 'last_ckpt' or key.startswith('best_ckpt')):
            yield str(value)


def _bare(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def _write(path: Path, data: bytes) -> None:
    try:
        write_with_digest(path, data)
    except OSError as error:
        raise CheckpointWriteError(
            f'{path} could not be written: {error}. The checkpoint beside it is whole: make room '
            'or repair the permissions, then continue with --resume.'
        ) from error
