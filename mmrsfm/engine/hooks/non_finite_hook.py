# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Steps that give NaN or infinity: found, explained, left out, and counted."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmrsfm.engine.non_finite import (
    ForwardSearch,
    Origin,
    first_non_finite,
    sample_tensors,
    search_inputs,
)
from mmrsfm.engine.random_state import preserved_random_state
from mmrsfm.engine.step_guard import LOSS, BufferGuard, StepGuard
from mmrsfm.errors import ConfigError, NonFiniteError
from mmrsfm.registry import HOOKS

_INFO = 'non_finite_steps'
_SHOWN = 16  # samples that a report names


@dataclass
class _Call:
    """A forward pass of the model, so that it can be made once more."""

    args: Any
    kwargs: Any
    python: Any
    numpy: Any
    torch: Tensor
    cuda: Tensor | None


@dataclass
class _Suspect:
    """The batch during which a number was first found to be not finite, on this rank."""

    call: _Call | None
    names: list[str]


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Leaves out every step whose loss or gradients hold NaN or infinity, and says what made them.

    After the backward pass and before the optimizer, all ranks agree whether the loss and the
    gradients are finite on each of them. If not, the optimizer does not step on any rank, the
    gradients are dropped, and the buffers of the model (running statistics of batch normalisation)
    become again what they were. With gradient accumulation that is the whole accumulated step. Each
    rank then runs the forward pass of its batch once more, with the same random numbers, and, if
    all is finite there, the backward pass; the log names the first module with a number that is
    not finite, and the samples of the batch that have one: path, index, epoch, range of values.

    Schedules count a step that is left out. Its loss is logged as it was, and
    ``train/skipped_steps`` with it. The counts are part of the checkpoint
    (``message_hub.get_info('non_finite_steps')``), so that a resumed run goes on counting.

    With a dynamic loss scale (``AmpOptimWrapper``) gradients that overflow are normal: the scaler
    leaves the step out itself and lowers the scale. That is counted apart, and no error, as long as
    the scale is above 1. A loss that is not finite is one, whatever the scale.

    Costs one pass over the gradients, one number shared between ranks, a wait for the device (of
    which MMEngine has another for the log) and copies of changed buffers; see
    ``docs/reliability.md``.

    Args:
        max_in_a_row: How many successive steps may be left out.
        max_total: How many steps of the run may be left out; ``None`` for any number.
        search: Whether to look for module and samples, at the cost of two more forward passes and
            a backward pass for each step that is left out.

    Raises:
        ConfigError: For a negative limit.
        NonFiniteError: While training, on every rank, if more steps are left out.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self, max_in_a_row: int = 5, max_total: int | None = 100, search: bool = True
    ) -> None:
        if max_in_a_row < 0 or (max_total is not None and max_total < 0):
            raise ConfigError(
                'NonFiniteHook: max_in_a_row and max_total must be >= 0, got '
                f'{max_in_a_row} and {max_total}'
            )
        self.max_in_a_row = max_in_a_row
        self.max_total = max_total
        self.search = search
        self._guards: list[StepGuard] = []
        self._handle: Any = None
        self._batch: Any = None
        self._call: _Call | None = None
        self._searching = False

    def before_train(self, runner: Any) -> None:
        """Puts the checks into the optimizer wrapper, and takes up the counts of a resumed run."""
        self._release()
        self._runner = runner
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._buffers = BufferGuard(self._model)
        self._counts = {'total': 0, 'in_a_row': 0, 'scaler_skips': 0}
        self._counts.update(runner.message_hub.runtime_info.get(_INFO) or {})
        wrappers = runner.optim_wrapper
        parts = wrappers.values() if isinstance(wrappers, OptimWrapperDict) else [wrappers]
        self._guards = [StepGuard(one, self) for one in parts if isinstance(one, OptimWrapper)]
        if self.search:
            self._handle = self._model.register_forward_pre_hook(self._remember, with_kwargs=True)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Remembers the batch, for the names of its samples."""
        self._batch = data_batch

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Forgets the batch."""
        self._batch = self._call = None
        if self._counts['total']:
            runner.message_hub.update_scalar('train/skipped_steps', self._counts['total'])

    def after_train(self, runner: Any) -> None:
        """Takes the checks out again, and sums up."""
        self._release()
        counts = self._counts
        if counts['total'] or counts['scaler_skips']:
            runner.logger.info(
                f'{counts["total"]} steps were left out because of numbers that are not finite; '
                f'{counts["scaler_skips"]} by the loss scaler, which looked for its scale.'
            )

    def suspect(self) -> _Suspect:
        """The current batch of this rank."""
        return _Suspect(self._call, self._names())

    def passed(self, by_scaler: bool = False) -> None:
        """Counts a step that the optimizer, or its loss scaler, gets."""
        self._buffers.keep()
        if by_scaler:
            self._counts['scaler_skips'] += 1
            self._publish()
        elif self._counts['in_a_row']:
            self._counts['in_a_row'] = 0
            self._publish()

    def failed(self, code: int, suspect: _Suspect, wrapper: OptimWrapper) -> None:
        """Counts, explains and, beyond the limits, refuses a step. A collective."""
        self._counts['total'] += 1
        self._counts['in_a_row'] += 1
        self._publish()
        self._buffers.restore()
        what = 'the loss is' if code == LOSS else 'gradients are'
        counts = self._counts
        runner = self._runner
        lines = [
            f'Step {runner.iter + 1} (epoch {runner.epoch + 1}) is left out: {what} not finite '
            f'({counts["in_a_row"]} in a row, {counts["total"]} in this run).',
            *(self._explain(suspect, wrapper) if self.search else []),
        ]
        report = '\n'.join(lines)
        limits = []
        if counts['in_a_row'] > self.max_in_a_row:
            limits.append(f'max_in_a_row={self.max_in_a_row}')
        if self.max_total is not None and counts['total'] > self.max_total:
            limits.append(f'max_total={self.max_total}')
        if limits:
            raise NonFiniteError(
                f'{report}\nThe run stops: NonFiniteHook allows {" and ".join(limits)}. The '
                'weights of the last checkpoint are finite. Look at the samples and the '
                'normalisation (mean, std, scale, units) first, then lower the learning rate or '
                'clip the gradients.'
            )
        runner.logger.warning(report)

    def _explain(self, suspect: _Suspect, wrapper: OptimWrapper) -> list[str]:
        """Searches on every rank; the same number of passes on each, as SyncBN needs."""
        for backward in (False, True):
            found = self._search(suspect, wrapper, backward)
            own = None if found is None else self._describe(found, suspect)
            lines = [
                f'  rank {rank}: {line}'
                for rank, part in enumerate(all_gather_object(own))
                for line in part or ()
            ]
            if lines:
                return lines
        return [
            '  The same batch, run once more, gives finite numbers: an operation is not '
            'deterministic, or the hardware is faulty.'
        ]

    def _search(self, suspect: _Suspect, wrapper: OptimWrapper, backward: bool) -> Origin | None:
        """``None`` if nothing was found."""
        call = suspect.call
        # With FSDP each rank has its part of the weights.
        own = first_non_finite(self._model.named_parameters())
        parameter = next((one for one in all_gather_object(own) if one), None)
        if parameter is not None and not backward:
            return Origin(f'the weights: {parameter} is not finite before the step')
        if call is None:
            return Origin('the search needs a model that is run by its forward()')
        size = len(suspect.names)
        if not backward:
            origin = search_inputs(call.args, call.kwargs, size)
            if origin.where is not None and get_world_size() == 1:
                return origin
        try:
            with preserved_random_state():
                again = self._run_again(call, wrapper, size, backward)
        except Exception as error:  # for a message: the step is left out whatever happens here
            again = Origin(f'the search failed ({type(error).__name__}: {error})')
        finally:
            self._searching = False
            self._buffers.restore()
        if not backward and origin.where is not None:
            return origin
        return again if again.where is not None else None

    def _run_again(self, call: _Call, wrapper: OptimWrapper, size: int, backward: bool) -> Origin:
        random.setstate(call.python)
        np.random.set_state(call.numpy)
        torch.set_rng_state(call.torch)
        if call.cuda is not None:
            torch.cuda.set_rng_state(call.cuda)
        self._searching = True
        outer = self._runner.model
        # Not through DDP: its backward pass would meet no other rank's.
        model = self._model if isinstance(outer, DistributedDataParallel) else outer
        search = ForwardSearch(self._model, size, gradients=backward)
        # Modules inside a compiled graph call no hooks. (The import of the compiler takes seconds.)
        compiling = 'torch._dynamo' in sys.modules
        stance = torch.compiler.set_stance('force_eager') if compiling else nullcontext()
        with stance, search, wrapper.optim_context(self._model), torch.set_grad_enabled(True):
            losses = model(*call.args, **call.kwargs)
        if not backward:
            if search.origin.where is not None:
                search.origin.notes.extend(_loss_names(losses))
            return search.origin
        total, _ = self._model.parse_losses(losses)
        wrapper.zero_grad()
        scaler = getattr(wrapper, 'loss_scaler', None)
        (total if scaler is None else scaler.scale(total)).backward()
        return search.after_backward()

    def _describe(self, origin: Origin, suspect: _Suspect) -> list[str]:
        lines = [f'first in {origin.where}', *origin.notes]
        call = suspect.call
        names = suspect.names
        places = origin.samples or list(range(len(names)))
        lines.append('samples:' if origin.samples else 'one of the samples:')
        inputs = None
        if call is not None:
            inputs = call.kwargs.get('inputs', call.args[0] if call.args else None)
        tensors = sample_tensors(inputs, len(names))
        lines += [f'  {names[place]}{_range(tensors[place])}' for place in places[:_SHOWN]]
        if len(places) > _SHOWN:
            lines.append(f'  ... and {len(places) - _SHOWN} more')
        return lines

    def _remember(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._searching or not module.training:
            return
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        self._call = _Call(
            args, kwargs, random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda
        )

    def _names(self) -> list[str]:
        """A name of each sample in the batch: path, and index and epoch where the loop knows."""
        batch = self._batch
        batch = batch if isinstance(batch, Mapping) else {}
        samples = batch.get('data_samples')
        infos: list[Mapping[str, Any]]
        if isinstance(samples, list | tuple):
            infos = [getattr(one, 'metainfo', {}) for one in samples]
        else:
            inputs = batch.get('inputs', ())
            if isinstance(inputs, Mapping):
                inputs = next(iter(inputs.values()), ())
            size = len(inputs) if isinstance(inputs, list | tuple | Tensor) else 0
            infos = [
                {
                    key: batch[key][place]
                    for key in ('img_path', 'index')
                    if isinstance(batch.get(key), list | tuple) and len(batch[key]) == size
                }
                for place in range(size)
            ]
        find = getattr(self._runner.train_loop, 'batch_addresses', None)
        addresses = (find(len(infos)) if find else None) or [None] * len(infos)
        dataset = getattr(self._runner.train_dataloader, 'dataset', None)
        return [_name(info, at, dataset) for info, at in zip(infos, addresses, strict=True)]

    def _publish(self) -> None:
        self._runner.message_hub.update_info(_INFO, dict(self._counts))

    def _release(self) -> None:
        for guard in self._guards:
            guard.release()
        self._guards = []
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


def _loss_names(losses: Any) -> list[str]:
    if not isinstance(losses, Mapping):
        return []
    bad = [key for key, one in losses.items() if first_non_finite([(key, _total(one))])]
    return [f'losses that are not finite: {", ".join(bad)}'] if bad else []


def _total(loss: Any) -> Tensor | None:
    parts = list(loss) if isinstance(loss, list | tuple) else [loss]
    tensors = [one.detach().float().sum() for one in parts if isinstance(one, Tensor)]
    return torch.stack(tensors).sum() if tensors else None


def _name(info: Mapping[str, Any], address: Any, dataset: Any) -> str:
    path = info.get('img_path') or info.get('tile_id')
    index = address if address is not None else info.get('index', info.get('sample_idx'))
    if not path and address is not None and hasattr(dataset, '_path'):
        path = dataset._path(int(address))
    path = path[0] if isinstance(path, list | tuple) and path else path
    details = [] if index is None else [f'index {int(index)}']
    if address is not None:
        details.append(f'epoch {address.epoch + 1}')
    return f'{path or "path unknown"}' + (f' ({", ".join(details)})' if details else '')


def _range(tensors: list[Tensor]) -> str:
    values = [one.detach()[one.isfinite()].float() for one in tensors]
    values = [one for one in values if one.numel()]
    bad = sum(int((~one.isfinite()).sum()) for one in tensors)
    text = ''
    if values:
        low = min(float(one.min()) for one in values)
        high = max(float(one.max()) for one in values)
        text = f': values from {low:.4g} to {high:.4g}'
    return text + (f', {bad} not finite' if bad else '')
