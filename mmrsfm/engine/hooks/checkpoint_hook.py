# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Checkpoints that are written whole, and from which a run goes on exactly."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook as BaseCheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop

from mmrsfm.checkpoints import describe_model, read_checkpoint
from mmrsfm.checkpoints.integrity import check_digest
from mmrsfm.engine.atomic_io import (
    ATOMIC_BACKEND,
    atomic_write,
    check_writable,
    remove_incomplete,
    write_with_digest,
)
from mmrsfm.engine.loops.resumable import ResumableLoop
from mmrsfm.engine.pending_gradients import gather_pending_gradients, restore_pending_gradients
from mmrsfm.engine.random_state import capture_random_state, restore_random_state
from mmrsfm.engine.sharding import prepare_sharded_run, whole_states
from mmrsfm.errors import CheckpointError, CheckpointWriteError
from mmrsfm.registry import HOOKS

STATE_KEY = 'mmrsfm'
ENCODERS_KEY = 'encoder_checkpoints'  # of EncoderCheckpointHook
_INTERIM = 'interim_ckpts'


@HOOKS.register_module()
class CheckpointHook(BaseCheckpointHook):
    """MMEngine's checkpoint hook with atomic writes, the imagery contract and a full state.

    To what MMEngine writes it adds

    * ``meta['mmrsfm_contract']``, from the model's data preprocessor, where that has a contract,
      and ``meta['mmrsfm_traits']`` (see :func:`mmrsfm.checkpoints.describe_model`);
    * ``checkpoint['mmrsfm']``, in checkpoints to resume from: ``version``; ``loop``, the state of
      the training loop and its sampler; ``random_state``, the generator states of each rank;
      ``gradients``, where gradient accumulation was interrupted, those of each rank.

    Both hold plain values and tensors only. On a resume they are restored before the first step; a
    checkpoint given as ``load_from`` restores weights alone.

    Beside each file lies its SHA-256 (``epoch_3.pth.sha256``, for ``sha256sum -c``). A checkpoint
    that a newer one replaces (``max_keep_ckpts``, ``save_best``) is deleted after the newer one and
    its pointer are on the disk, and what was read back from there has the right digest. The folder
    is tried before the first step. If something cannot be written, every rank raises.

    Args:
        interval: As in MMEngine; by default every epoch, or every ``val_interval`` iterations.
        by_epoch: As in MMEngine; by default the unit of the training loop.
        **kwargs: The other arguments of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        CheckpointWriteError: Before training, if the folder cannot be written to; while training,
            if a checkpoint cannot.
        CheckpointError: Before training, if ranks resumed from different checkpoints.
    """

    file_backend: Any

    def __init__(
        self, interval: int | None = None, by_epoch: bool | None = None, **kwargs: Any
    ) -> None:
        self._given = {'interval': interval, 'by_epoch': by_epoch}
        self._names_itself = kwargs.get('filename_tmpl') is None
        super().__init__(
            -1 if interval is None else interval, True if by_epoch is None else by_epoch, **kwargs
        )
        self._random_states: list[dict[str, Any]] | None = None
        self._gradients: dict[str, Any] | None = None
        self._state: dict[str, Any] | None = None
        self._saved_at: int | None = None

    def before_run(self, runner: Any) -> None:
        """Lets a Runner load and save a model that is spread over ranks."""
        prepare_sharded_run(runner)

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
        self._move_here(runner)
        self._local = local and self.backend_args == {'backend': ATOMIC_BACKEND}
        if local:
            self._together(f'The folder {self.out_dir}', lambda: self._prepare_folder(runner))
        if len(set(steps := all_gather_object(runner.iter))) > 1:
            raise CheckpointError(
                f'the ranks resumed at different steps ({steps}): they see different files. Give '
                'the checkpoint by --resume PATH'
            )
        state, self._state = self._state, None
        if runner.iter > 0:  # not after load_from, where only the weights were wanted
            self._restore(runner, state or {})

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
            if self._gradients is not None:
                checkpoint[STATE_KEY]['gradients'] = self._gradients

    def save_interim(self, runner: Any, epoch: int, iteration: int) -> str:
        """Saves now, between two regular checkpoints; the next regular one replaces it.

        A collective: all ranks call it, at the same place.

        Args:
            runner: The runner.
            epoch: Number of epochs that are done.
            iteration: Number of steps that are done.

        Returns:
            The file, ``iter_{iteration}.pth``: the last regular one, where that is of this state.

        Raises:
            CheckpointWriteError: If it cannot be written.
        """
        if self.last_ckpt is not None and self._saved_at == iteration:
            return str(self.last_ckpt)
        name = f'iter_{iteration}.pth'
        path = self.file_backend.join_path(self.out_dir, name)
        known = runner.message_hub.runtime_info.get(_INTERIM) or []
        former = [file for file in known if file != path]
        runner.message_hub.update_info(_INTERIM, [path])
        self._write(runner, name, False, {'epoch': epoch, 'iter': iteration}, former)
        return path

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        name = self.filename_tmpl.format(step)
        interim = runner.message_hub.runtime_info.get(_INTERIM) or []
        kept = self.file_backend.join_path(self.out_dir, name)
        expired = [*self._expired(runner, step), *(file for file in interim if file != kept)]
        runner.message_hub.update_info(_INTERIM, [])
        self._write(runner, name, self.by_epoch, meta, expired)

    def _write(
        self, runner: Any, name: str, by_epoch: bool, meta: dict[str, Any], expired: list[str]
    ) -> None:
        # Here all ranks are together; runner.save_checkpoint runs on the master alone, where a
        # collective would wait for ever.
        loop = runner.train_loop
        own = loop.random_state() if isinstance(loop, ResumableLoop) else capture_random_state()
        self._random_states = all_gather_object(own)
        if self.save_optimizer:
            self._gradients = gather_pending_gradients(runner.optim_wrapper)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        self._saved_at = meta['iter']
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)

        def save() -> None:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler and bool(runner.param_schedulers),
                meta=meta,
                by_epoch=by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                pointer = Path(runner.work_dir) / 'last_checkpoint'
                atomic_write(pointer, str(self.last_ckpt).encode())
                self._remove([file for file in expired if self.file_backend.isfile(file)])

        try:
            with whole_states(runner):
                self._together(str(self.last_ckpt), save)
        finally:
            self._random_states = self._gradients = None

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, Any]) -> None:
        # MMEngine deletes the former best one before it writes the new one, on the master alone.
        backend = self.file_backend
        later = _LaterRemoval(backend)
        self.file_backend = later
        try:
            super()._save_best_checkpoint(_JointSaving(runner, self), metrics)
        finally:
            self.file_backend = backend
        info = runner.message_hub.runtime_info
        best = {str(value) for key, value in info.items() if key.startswith('best_ckpt')}
        former = [file for file in later.files if str(file) not in best]
        self._together(str(self.last_ckpt), lambda: self._remove(former))

    def _publish_model(self, runner: Any, ckpt_path: str) -> None:
        # MMEngine writes this file in its place, with pickled code allowed when it reads.
        if not self._local:
            super()._publish_model(runner, ckpt_path)
            return

        def publish() -> None:
            if not is_main_process():
                return
            if not Path(ckpt_path).is_file():  # the best one, of before the run came here
                runner.logger.warning(f'{ckpt_path} is not there, and so not published.')
                return
            checkpoint = read_checkpoint(ckpt_path)
            kept = {key: checkpoint[key] for key in self.published_keys or () if key in checkpoint}
            buffer = io.BytesIO()
            torch.save(kept, buffer)
            data = buffer.getvalue()
            name = Path(ckpt_path)
            name = name.with_name(f'{name.stem}-{hashlib.sha256(data).hexdigest()[:8]}.pth')
            write_with_digest(name, data)
            runner.logger.info(f'{ckpt_path} is published as {name}, with {list(kept)}.')

        self._together(f'The published part of {ckpt_path}', publish)

    def _move_here(self, runner: Any) -> None:
        """Has the run that is resumed look for its files in this folder.

        It may have been copied, or be resumed into another folder: the files of the former one,
        e.g. the best checkpoint there, are not this run's to delete.
        """
        info = runner.message_hub.runtime_info

        def here(file: Any) -> Any:
            return file and self.file_backend.join_path(self.out_dir, Path(str(file)).name)

        for key in [key for key in info if key == 'last_ckpt' or key.startswith('best_ckpt')]:
            runner.message_hub.update_info(key, here(info[key]))
        for key in [key for key in (_INTERIM, ENCODERS_KEY) if info.get(key)]:
            runner.message_hub.update_info(key, [here(file) for file in info[key]])
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = info.get('best_ckpt')
        for name in getattr(self, 'best_ckpt_path_dict', ()):
            self.best_ckpt_path_dict[name] = info.get(f'best_ckpt_{name}')

    def _prepare_folder(self, runner: Any) -> None:
        if not is_main_process():
            return
        check_writable(self.out_dir)
        for file in remove_incomplete(self.out_dir):
            runner.logger.warning(f'Removed {file}, left by a run that was killed.')

    def _remove(self, files: list[str]) -> None:
        """Deletes what newer checkpoints replace, if the newest one is good."""
        if files and isinstance(self.file_backend, _LaterRemoval):
            self.file_backend.files.extend(files)
        elif files:
            if self._local and self.last_ckpt is not None:
                check_digest(self.last_ckpt)
            for file in files:
                self.file_backend.remove(file)

    def _together(self, what: str, action: Callable[[], None]) -> None:
        """Does something that may fail on the master, where the other ranks would wait for ever."""
        error: Exception | None = None
        try:
            action()
        except Exception as raised:
            error = raised
        texts = [None if error is None else str(error)]
        broadcast_object_list(texts, src=0)
        if error is not None and not isinstance(error, OSError | CheckpointError):
            raise error
        if texts[0] is not None or error is not None:
            raise CheckpointWriteError(
                f'{what} could not be written: {texts[0] or error}. The checkpoints before it are '
                'untouched: make room or repair the permissions, then continue with --resume.'
            ) from error

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
        if not loop_state or runner.iter != loop_state['iter']:
            if isinstance(runner.train_loop, ResumableLoop):
                runner.train_loop.continue_without_state()
            return
        if isinstance(runner.train_loop, ResumableLoop):
            runner.train_loop.load_state_dict(loop_state)
        if state.get('gradients') is not None:
            if restore_pending_gradients(runner.optim_wrapper, state['gradients']):
                runner.logger.info('Gradients that were accumulated before are there again.')
            else:
                runner.logger.warning(
                    'Gradients that were accumulated before are dropped: accumulative_counts '
                    'changed.'
                )
        states = state['random_state']
        if len(states) == get_world_size():
            restore_random_state(states[get_rank()])
        else:
            runner.logger.warning(
                f'The checkpoint was written by {len(states)} ranks, this run has '
                f'{get_world_size()}: the random generators of the model start afresh.'
            )


class _LaterRemoval:
    """A file backend that only takes down what is to be removed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.files: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.files.append(path)


class _JointSaving:
    """A runner whose checkpoints all ranks know to be written, or not."""

    def __init__(self, runner: Any, hook: CheckpointHook) -> None:
        self._runner = runner
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        def save() -> None:
            self._runner.save_checkpoint(out_dir, filename, *args, **kwargs)

        with whole_states(self._runner):
            self._hook._together(str(Path(out_dir) / filename), save)
