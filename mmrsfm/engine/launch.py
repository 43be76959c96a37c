# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Starts ``torch.distributed`` under torchrun, Slurm or MPI, on GPUs (nccl) or on a CPU (gloo).

MMEngine's own launchers select a CUDA device unconditionally, so that they fail on a machine
without one. A Runner leaves an initialised process group alone: call :func:`init_distributed` and
:func:`configure_distributed` before ``Runner.from_cfg``.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import distributed

from mmrsfm.errors import LaunchError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')

# Below the range from which Linux takes the ports of outgoing connections (32768 and up).
_FIRST_PORT, _NUM_PORTS = 12000, 20000
_SECONDS_FOR_GLOO = 0.2


@dataclass(frozen=True)
class Rank:
    """The place of a process in its job.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, from 0.
        master_addr: Host of rank 0.
        master_port: Port at which rank 0 listens.
    """

    rank: int
    world_size: int
    local_rank: int
    master_addr: str
    master_port: int


def init_distributed(
    launcher: str,
    backend: str | None = None,
    port: int | None = None,
    timeout: float | None = None,
) -> Rank | None:
    """Initialises ``torch.distributed`` from what the launcher says in the environment.

    Sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, which MMEngine and torch read.

    Args:
        launcher: ``'none'`` (nothing is done), ``'pytorch'`` (torchrun), ``'slurm'`` (srun) or
            ``'mpi'`` (Open MPI, MPICH, Intel MPI, MVAPICH).
        backend: Backend of torch.distributed. By default nccl where there is a GPU, else gloo; nccl
            without a GPU becomes gloo.
        port: Port of rank 0, where the environment (MASTER_PORT) does not say it. Under Slurm and
            MPI the default follows from the job, so that two jobs on one machine do not meet.
        timeout: Seconds after which a collective operation fails.

    Returns:
        The place of this process, or ``None`` for the launcher ``'none'``.

    Raises:
        LaunchError: If the environment is not the launcher's, if there are more processes than GPUs
            on a machine, or if the processes do not find one another.
    """
    if launcher not in LAUNCHERS:
        raise LaunchError(f'--launcher {launcher}: unknown; choose one of {", ".join(LAUNCHERS)}.')
    if launcher == 'none':
        _warn_if_launched(os.environ)
        return None
    place = read_rank(launcher, os.environ, port)
    local_rank = place.local_rank
    if torch.cuda.is_available():
        local_rank = _select_gpu(launcher, place)
    if backend is None or (backend == 'nccl' and not torch.cuda.is_available()):
        backend = 'nccl' if torch.cuda.is_available() else 'gloo'
    os.environ.update(
        RANK=str(place.rank),
        WORLD_SIZE=str(place.world_size),
        LOCAL_RANK=str(local_rank),  # MMEngine takes it for the number of the device
        MASTER_ADDR=place.master_addr,
        MASTER_PORT=str(place.master_port),
    )
    if not distributed.is_initialized():
        options: dict[str, Any] = {}
        if timeout is not None:
            options['timeout'] = timedelta(seconds=timeout)
        try:
            distributed.init_process_group(
                backend, rank=place.rank, world_size=place.world_size, **options
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise LaunchError(
                f'rank {place.rank} of {place.world_size} could not join the others at '
                f'{place.master_addr}:{place.master_port} ({backend}): {error}. If the port is '
                'taken, set MASTER_PORT (PORT for dist_train.sh) to a free one.'
            ) from error
    return place


def read_rank(launcher: str, environ: Mapping[str, str], port: int | None = None) -> Rank:
    """Reads the place of this process from the variables that the launcher sets.

    Args:
        launcher: ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        environ: The environment.
        port: As in :func:`init_distributed`.

    Returns:
        The place of this process.

    Raises:
        LaunchError: If variables are missing or are not numbers.
    """
    return {'pytorch': _read_torchrun, 'slurm': _read_slurm, 'mpi': _read_mpi}[launcher](
        environ, port
    )


def configure_distributed(cfg: Config, place: Rank | None, launcher: str) -> None:
    """Adapts a config to the process group that :func:`init_distributed` made.

    Sets ``cfg.launcher``; on a CPU it also gives the model wrapper ``device_ids=None``, which
    MMEngine's default does not, and keeps ``find_unused_parameters``. Synchronised batch norms
    exist on GPUs only, and DistributedDataParallel refuses a model that has one on a CPU: there
    they become plain ones (the same parameters and state dict; each rank takes the statistics of
    its own images), with a message.

    Args:
        cfg: The config, changed in place.
        place: From :func:`init_distributed`.
        launcher: The launcher.
    """
    cfg.launcher = launcher
    if place is None or torch.cuda.is_available():
        return
    wrapper: MutableMapping[str, Any] = cfg.get('model_wrapper_cfg') or {}
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    if 'DistributedDataParallel' in str(wrapper['type']):
        wrapper.setdefault('device_ids', None)
        wrapper.setdefault('broadcast_buffers', False)
        unused = cfg.get('find_unused_parameters', False)
        wrapper.setdefault('find_unused_parameters', unused)
    elif 'FullyShardedDataParallel' in str(wrapper['type']):
        wrapper.setdefault('device_id', 'cpu')
    cfg.model_wrapper_cfg = wrapper
    converts = cfg.pop('sync_bn', None)
    if _replace_sync_batch_norm(cfg.get('model')) or converts:
        print_log(
            'SyncBN runs on GPUs only: on a CPU each rank takes the statistics of its own images.',
            logger='current',
            level=30,
        )


def shut_down() -> None:
    """Leaves the process group, if there is one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    gloo = 'gloo' in distributed.get_backend()
    distributed.destroy_process_group()
    if gloo:
        # Threads of gloo outlive the group, and need the interpreter's lock once more to free the
        # tensors of the last collective. One that still waits for it when the interpreter ends
        # aborts the process ("terminate called without an active exception", exit code 134). A
        # sleep hands the lock over, which running Python code does only after some milliseconds.
        time.sleep(_SECONDS_FOR_GLOO)


def first_host(nodelist: str) -> str:
    """Returns the first host of a Slurm node list, e.g. ``'n007'`` for ``'n[007-012,020],gpu1'``.

    Done here rather than by ``scontrol``, which is not installed in every container.

    Args:
        nodelist: As in ``SLURM_JOB_NODELIST``; several ranges in a name are understood.
    """
    depth = 0
    for end, char in enumerate(nodelist):
        depth += {'[': 1, ']': -1}.get(char, 0)
        if char == ',' and depth == 0:
            nodelist = nodelist[:end]
            break
    return re.sub(r'\[([^\],-]+)[^\]]*\]', r'\1', nodelist)


def _read_torchrun(environ: Mapping[str, str], port: int | None) -> Rank:
    hint = (
        'are the processes started by torchrun? Use tools/dist_train.sh CONFIG GPUS, or '
        'torchrun --nproc_per_node=GPUS tools/train.py CONFIG --launcher pytorch.'
    )
    return Rank(
        rank=_number(environ, 'pytorch', ('RANK',), hint),
        world_size=_number(environ, 'pytorch', ('WORLD_SIZE',), hint),
        local_rank=_number(environ, 'pytorch', ('LOCAL_RANK',), hint),
        master_addr=environ.get('MASTER_ADDR', '127.0.0.1'),
        master_port=_port(environ, port, 29500),
    )


def _read_slurm(environ: Mapping[str, str], port: int | None) -> Rank:
    hint = (
        'are the processes started by srun? Use tools/slurm_train.sh PARTITION JOB_NAME CONFIG, or '
        'srun --ntasks=N python tools/train.py CONFIG --launcher slurm.'
    )
    rank = _number(environ, 'slurm', ('SLURM_PROCID',), hint)
    world_size = _number(environ, 'slurm', ('SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS'), hint)
    local_rank = _number(environ, 'slurm', ('SLURM_LOCALID',), hint)
    num_nodes = environ.get('SLURM_STEP_NUM_NODES', environ.get('SLURM_NNODES', ''))
    hosts = environ.get('SLURM_STEP_NODELIST') or environ.get('SLURM_JOB_NODELIST') or ''
    hosts = hosts or environ.get('SLURM_NODELIST', '')
    if num_nodes == '1':
        default_host = '127.0.0.1'  # the name of a single machine need not resolve
    elif hosts:
        default_host = first_host(hosts)
    else:
        raise LaunchError(f'--launcher slurm: SLURM_JOB_NODELIST is not set; {hint}')
    job = environ.get('SLURM_JOB_ID', '0')
    step = environ.get('SLURM_STEP_ID', '0')
    return Rank(
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        master_addr=environ.get('MASTER_ADDR', default_host),
        master_port=_port(environ, port, _derived_port(f'{job}.{step}')),
    )


def _read_mpi(environ: Mapping[str, str], port: int | None) -> Rank:
    hint = (
        'are the processes started by mpirun? Use '
        'mpirun -n N python tools/train.py CONFIG --launcher mpi.'
    )
    rank = _number(
        environ, 'mpi', ('OMPI_COMM_WORLD_RANK', 'MV2_COMM_WORLD_RANK', 'PMI_RANK'), hint
    )
    world_size = _number(
        environ, 'mpi', ('OMPI_COMM_WORLD_SIZE', 'MV2_COMM_WORLD_SIZE', 'PMI_SIZE'), hint
    )
    local_rank = _number(
        environ,
        'mpi',
        (
            'OMPI_COMM_WORLD_LOCAL_RANK',
            'MV2_COMM_WORLD_LOCAL_RANK',
            'MPI_LOCALRANKID',
            'PMI_LOCAL_RANK',
        ),
        hint,
    )
    local_size = environ.get('OMPI_COMM_WORLD_LOCAL_SIZE') or environ.get(
        'MV2_COMM_WORLD_LOCAL_SIZE', environ.get('MPI_LOCALNRANKS', '')
    )
    host = environ.get('MASTER_ADDR')
    if host is None:
        if local_size != str(world_size):
            raise LaunchError(
                '--launcher mpi: the job spans several machines, and MPI does not say where rank 0 '
                'runs. Set MASTER_ADDR to its host (mpirun -x MASTER_ADDR=... ).'
            )
        host = '127.0.0.1'
    job = environ.get('PMIX_NAMESPACE', environ.get('PMI_JOBID', '0'))
    return Rank(
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        master_addr=host,
        master_port=_port(environ, port, _derived_port(job)),
    )


def _replace_sync_batch_norm(value: Any) -> int:
    """Writes BN for every SyncBN in a part of a config, and returns how many there were."""
    if isinstance(value, (list, tuple)):
        return sum(_replace_sync_batch_norm(entry) for entry in value)
    if not isinstance(value, MutableMapping):
        return 0
    count = sum(_replace_sync_batch_norm(entry) for entry in list(value.values()))
    if value.get('type') in ('SyncBN', 'MMSyncBN'):
        value['type'] = 'BN'
        count += 1
    return count


def _number(environ: Mapping[str, str], launcher: str, names: tuple[str, ...], hint: str) -> int:
    for name in names:
        if name in environ:
            try:
                return int(environ[name])
            except ValueError:
                raise LaunchError(
                    f'--launcher {launcher}: {name}={environ[name]!r} is not a number'
                ) from None
    raise LaunchError(f'--launcher {launcher}: {" or ".join(names)} is not set; {hint}')


def _port(environ: Mapping[str, str], port: int | None, default: int) -> int:
    value = environ.get('MASTER_PORT')
    if value is None:
        return default if port is None else port
    if not value.isdigit():
        raise LaunchError(f'MASTER_PORT={value!r} is not a number')
    return int(value)


def _derived_port(job: str) -> int:
    return _FIRST_PORT + zlib.crc32(job.encode()) % _NUM_PORTS


def _select_gpu(launcher: str, place: Rank) -> int:
    count = torch.cuda.device_count()
    index = place.local_rank
    if launcher in ('slurm', 'mpi') and count == 1:
        index = 0  # srun --gpus-per-task=1 shows each task its own GPU only
    if index >= count:
        raise LaunchError(
            f'process {index} of this machine has no GPU: {count} are visible. Start at most '
            f'{count} processes per machine, or set CUDA_VISIBLE_DEVICES= to run on the CPU.'
        )
    torch.cuda.set_device(index)
    return index


def _warn_if_launched(environ: Mapping[str, str]) -> None:
    for name in ('WORLD_SIZE', 'SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'):
        if environ.get(name, '1').isdigit() and int(environ.get(name, '1')) > 1:
            print_log(
                f'{name}={environ[name]}, but --launcher is none: each process runs on its own. '
                'Pass --launcher pytorch, slurm or mpi to train together.',
                level=30,
            )
            return
