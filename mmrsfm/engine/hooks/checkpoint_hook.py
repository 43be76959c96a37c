# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Checkpoints that are written whole, and from which a run goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook as BaseCheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop

from mmrsfm.checkpoints import describe_model
from mmrsfm.engine.atomic_io import ATOMIC_BACKEND, atomic_write, remove_incomplete
from mmrsfm.engine.loops.resumable import ResumableLoop
from mmrsfm.engine.random_state import capture_random_state, restore_random_state
from mmrsfm.errors import CheckpointWriteError
from mmrsfm.registry import HOOKS

STATE_KEY = 'mmrsfm'


@HOOKS.register_module()
class CheckpointHook(BaseCheckpointHook):
    """MMEngine's checkpoint hook with atomic writes, the imagery contract and a full state.

    To what MMEngine writes it adds

    * ``meta['mmrsfm_contract']``, from the model's data preprocessor, where that has a contract,
      and ``meta['mmrsfm_traits']`` (see :func:`mmrsfm.checkpoints.describe_model`);
    * ``checkpoint['mmrsfm']``, in checkpoints to resume from: ``version``; ``loop``, the state of
      the training loop and its sampler; ``random_state``, the generator states of each rank.

    Both hold plain values and tensors only. On a resume they are restored before the first step; a
    checkpoint given as ``load_from`` restores weights alone. A checkpoint that a newer one replaces
    (``max_keep_ckpts``) is deleted after the newer one and its pointer are on the disk.

    Args:
        interval: As in MMEngine; by default every epoch, or every ``val_interval`` iterations.
        by_epoch: As in MMEngine; by default the unit of the training loop.
        **kwargs: The other arguments of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        CheckpointWriteError: While training, if a checkpoint cannot be written.
    """

    def __init__(
        self, interval: int | None = None, by_epoch: bool | None = None, **kwargs: Any
    ) -> None:
        self._given = {'interval': interval, 'by_epoch': by_epoch}
        self._names_itself = kwargs.get('filename_tmpl') is None
        super().__init__(
            -1 if interval is None else interval, True if by_epoch is None else by_epoch, **kwargs
        )
        self._random_states: list[dict[str, Any]] | None = None
        self._state: dict[str, Any] | None = None

    def before_train(self, runner: Any) -> None:
        """Settles the defaults, prepares the folder, and restores the state of a resumed run."""
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        if self._given['by_epoch'] is None:
            self.by_epoch = not by_iter
            if self._names_itself:
                self.filename_tmpl = 'iter_{}.pth' if by_iter else 'epoch_{}.pth'
        if self._given['interval'] is None:
            self.interval = runner.train_loop.val_interval if not self.by_epoch and by_iter else 1
        folder = str(self.out_dir or runner.work_dir)
        local = '://' not in folder and not folder.startswith('s3:')
        if local and not self.backend_args and not self.file_client_args:
            self.backend_args: dict[str, Any] | None = {'backend': ATOMIC_BACKEND}
        super().before_train(runner)
        if local and is_main_process() and Path(self.out_dir).is_dir():
            for file in remove_incomplete(self.out_dir):
                runner.logger.warning(f'Removed {file}, left by a run that was killed.')
        state, self._state = self._state, None
        if state is not None:
            self._restore(runner, state)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Takes the state out of a checkpoint; whether it is resumed shows later."""
        self._state = checkpoint.pop(STATE_KEY, None)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Adds the contract and, in a checkpoint to resume from, the state. On the master only."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        checkpoint['meta'].update(describe_model(model))
        if self._random_states is not None:
            loop = runner.train_loop
            checkpoint[STATE_KEY] = {
                'version': 1,
                'loop': loop.state_dict() if isinstance(loop, ResumableLoop) else None,
                'random_state': self._random_states,
            }

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        # Here all ranks are together; runner.save_checkpoint runs on the master alone, where a
        # collective would wait for ever.
        loop = runner.train_loop
        own = loop.random_state() if isinstance(loop, ResumableLoop) else capture_random_state()
        self._random_states = all_gather_object(own)
        expired = self._expired(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler and bool(runner.param_schedulers),
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                pointer = Path(runner.work_dir) / 'last_checkpoint'
                atomic_write(pointer, str(self.last_ckpt).encode())
                for file in expired:
                    if self.file_backend.isfile(file):
                        self.file_backend.remove(file)
        except OSError as error:
            raise CheckpointWriteError(
                f'{self.last_ckpt} could not be written: {error}. The checkpoints before it are '
                'untouched: make room or repair the permissions, then continue with --resume.'
            ) from error
        finally:
            self._random_states = None

    def _expired(self, runner: Any, step: int) -> list[str]:
        """Enters a step into the list of those to keep; returns the files that fall out of it."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return []
        expired = []
        while len(self.keep_ckpt_ids) >= self.max_keep_ckpts:
            name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            expired.append(self.file_backend.join_path(self.out_dir, name))
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return expired

    def _restore(self, runner: Any, state: dict[str, Any]) -> None:
        loop_state = state.get('loop')
        # After load_from the loop is at its beginning: then only the weights were wanted.
        if not loop_state or runner.iter == 0 or runner.iter != loop_state['iter']:
            return
        if isinstance(runner.train_loop, ResumableLoop):
            runner.train_loop.load_state_dict(loop_state)
        states = state['random_state']
        if len(states) == get_world_size():
            restore_random_state(states[get_rank()])
        else:
            runner.logger.warning(
                f'The checkpoint was written by {len(states)} ranks, this run has '
                f'{get_world_size()}: the random generators of the model start afresh.'
            )
