# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batches that come from workers through shared memory that is used again and again.

PyTorch's workers ask the system for new shared memory for every batch, which it fills with zeros
page by page when the batch is copied into it: of small and quickly read tiles that is most of the
time of a worker (measured in ``docs/data_speed.md``). Here a worker keeps its pieces, and takes one
again when the process that trains has let go of the batch that was in it.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.reduction import DupFd
from typing import Any

import mmengine.dataset
import numpy as np
import torch
from torch.utils.data import default_collate, get_worker_info

_HEAD = mmap.PAGESIZE  # the first byte of it: whether the piece is in use
_LEAST = 2**18  # bytes; below, new memory costs less than the bookkeeping
_MOST = 48  # pieces of a worker: each is an open file of the process that trains
_STACKING = (default_collate, mmengine.dataset.default_collate)


class SharedBatch:
    """A batch in a piece of shared memory, on its way: what is received is a plain tensor.

    The piece is free again when the last tensor, view or array of the batch has gone there.

    Args:
        piece: The memory, which holds the values.
        dtype: Of the tensor.
        shape: Of the tensor.
        retired: Numbers of pieces that the worker does not use any more.
    """

    def __init__(
        self, piece: _Piece, dtype: torch.dtype, shape: Sequence[int], retired: Sequence[int]
    ) -> None:
        self.piece = piece
        self.dtype = dtype
        self.shape = tuple(shape)
        self.retired = tuple(retired)

    def __reduce__(self) -> tuple[Callable[..., torch.Tensor], tuple[Any, ...]]:
        piece = self.piece
        handle = None if piece.sent else DupFd(piece.file)
        piece.sent = True
        key = (os.getpid(), piece.number)
        return _receive, (key, handle, piece.size, self.dtype, self.shape, self.retired)


class _Piece:
    """Shared memory of a worker."""

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size, self.sent = number, size, False
        self.file = os.memfd_create(f'mmrsfm_batch_{number}', os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.file, _HEAD + size)
            self.memory = mmap.mmap(self.file, _HEAD + size)
        except OSError:
            os.close(self.file)
            raise

    @property
    def in_use(self) -> bool:
        return self.memory[0] != 0

    def hold(self, shape: Sequence[int], dtype: torch.dtype, count: int) -> torch.Tensor:
        """Takes the piece; returns it as a tensor."""
        self.memory[0] = 1
        values = np.frombuffer(self.memory, np.uint8, count, _HEAD)
        return torch.from_numpy(values).view(dtype).view(*shape)

    def close(self) -> None:
        # The map goes with its last array.
        os.close(self.file)


class _Pool:
    """The pieces of one worker."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.pieces: list[_Piece] = []
        self.made = 0

    def stack(self, tensors: Sequence[torch.Tensor]) -> SharedBatch | None:
        """Stacks tensors of one form; ``None``: no piece is free."""
        shape = (len(tensors), *tensors[0].shape)
        return self._fill(shape, tensors[0].dtype, lambda out: torch.stack(list(tensors), out=out))

    def copy(self, tensor: torch.Tensor) -> SharedBatch | None:
        """Copies a tensor; ``None``: no piece is free."""
        return self._fill(tensor.shape, tensor.dtype, lambda out: out.copy_(tensor))

    def _fill(
        self, shape: Sequence[int], dtype: torch.dtype, fill: Callable[[torch.Tensor], Any]
    ) -> SharedBatch | None:
        count = math.prod(shape) * dtype.itemsize
        free = [piece for piece in self.pieces if not piece.in_use]
        fitting = [piece for piece in free if piece.size >= count]
        retired = []
        if fitting:
            piece = min(fitting, key=lambda one: one.size)
        else:
            # Batches have grown: the smaller pieces are of no more use.
            for old in free:
                self.pieces.remove(old)
                old.close()
                retired.append(old.number)
            if len(self.pieces) >= _MOST:
                return None
            piece = _Piece(self.made, count)
            self.made += 1
            self.pieces.append(piece)
        fill(piece.hold(shape, dtype, count))
        return SharedBatch(piece, dtype, shape, retired)


_pool: _Pool | None = None  # of this worker
_received: dict[tuple[int, int], mmap.mmap] = {}  # of this process, from its workers


def collate_in_shared_memory(
    items: Sequence[Any], collate: Callable[[Sequence[Any]], Any], key: str = 'inputs'
) -> Any:
    """Collates items, in a worker with the large tensors in shared memory that is used again.

    Images of one form are stacked there; those of a list (``pseudo_collate``) are there one by one.

    Args:
        items: What the pipeline returned.
        collate: The collate function. Where it is none of MMEngine's or PyTorch's, or this is no
            worker, it does everything.
        key: Of the large tensors in the items.

    Returns:
        What ``collate`` returns: in the process that trains, the same to the last bit.
    """
    global _pool
    if get_worker_info() is None or not hasattr(os, 'memfd_create'):
        return collate(items)
    if _pool is None or _pool.process != os.getpid():
        _pool = _Pool()
    if _plain(collate) is mmengine.dataset.pseudo_collate:
        return _listed(_pool, collate(items), key)
    tensors = _stackable(items, collate, key)
    if tensors is None:
        return collate(items)
    try:
        batch = _pool.stack(tensors)
    except OSError:  # no memory, or no more files: as without
        batch = None
    if batch is None:
        return collate(items)
    rest = collate([{name: item[name] for name in item if name != key} for item in items])
    # In the order of the items' own keys.
    return type(items[0])({name: batch if name == key else rest[name] for name in items[0]})


def _stackable(
    items: Sequence[Any], collate: Callable[[Sequence[Any]], Any], key: str
) -> list[torch.Tensor] | None:
    """The tensors of the items that can be stacked, ``None`` where they cannot."""
    if _plain(collate) not in _STACKING:
        return None
    if not all(type(item) is dict and key in item for item in items):
        return None
    tensors = [item[key] for item in items]
    first = tensors[0]
    if not all(type(one) is torch.Tensor for one in tensors):
        return None
    if not all(_is_large(one, len(items)) for one in tensors):
        return None
    # Others end with an error, which is the collate function's to raise.
    same = all(one.shape == first.shape and one.dtype == first.dtype for one in tensors)
    return tensors if same and set(items[0]) == set().union(*items) else None


def _listed(pool: _Pool, batch: Any, key: str) -> Any:
    """A batch of lists, with the large tensors of one list in shared memory."""
    tensors = batch.get(key) if type(batch) is dict else None
    if type(tensors) is not list:
        return batch
    try:
        for place, one in enumerate(tensors):
            if type(one) is torch.Tensor and _is_large(one):
                tensors[place] = pool.copy(one) or one
    except OSError:  # the rest as without
        pass
    return batch


def _is_large(tensor: torch.Tensor, count: int = 1) -> bool:
    plain = tensor.layout == torch.strided and tensor.device.type == 'cpu'
    return plain and count * tensor.numel() * tensor.element_size() >= _LEAST


def _plain(collate: Callable[[Sequence[Any]], Any]) -> Any:
    """The function, without a wrapping that adds nothing (that of MMEngine's runner)."""
    if isinstance(collate, partial) and not collate.args and not collate.keywords:
        return collate.func
    return collate


def _receive(
    key: tuple[int, int],
    handle: Any,
    size: int,
    dtype: torch.dtype,
    shape: Sequence[int],
    retired: Sequence[int],
) -> torch.Tensor:
    """The batch, as a tensor that gives its piece back when it is gone."""
    if handle is not None:
        _forget_ended_workers()
        file = handle.detach()
        try:
            _received[key] = mmap.mmap(file, _HEAD + size)
        finally:
            os.close(file)
    for number in retired:
        _received.pop((key[0], number), None)
    memory = _received[key]
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    values = np.frombuffer(memory, np.uint8, count, _HEAD)
    # Tensors keep the array whose memory they are of.
    finalizer = weakref.finalize(values, _give_back, memory, os.getpid())
    finalizer.atexit = False
    return torch.from_numpy(values).view(dtype).view(*shape)


def _give_back(memory: mmap.mmap, process: int) -> None:
    if os.getpid() == process:  # one that was forked meanwhile has the array too
        memory[0] = 0


def _forget_ended_workers() -> None:
    for process, number in list(_received):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            del _received[process, number]
        except OSError:
            pass
