# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import re

import pytest
import torch
from mmengine.config import Config

from mmrsfm.engine import launch
from mmrsfm.engine.launch import Rank, configure_distributed, first_host, read_rank
from mmrsfm.errors import LaunchError

TORCHRUN = {'RANK': '3', 'WORLD_SIZE': '8', 'LOCAL_RANK': '1', 'MASTER_ADDR': 'a'}
SLURM = {
    'SLURM_PROCID': '5',
    'SLURM_NTASKS': '16',
    'SLURM_LOCALID': '1',
    'SLURM_JOB_NODELIST': 'gpu[07-08,11]',
    'SLURM_NNODES': '3',
    'SLURM_JOB_ID': '4711',
    'SLURM_STEP_ID': '0',
}
OPEN_MPI = {
    'OMPI_COMM_WORLD_RANK': '1',
    'OMPI_COMM_WORLD_SIZE': '2',
    'OMPI_COMM_WORLD_LOCAL_RANK': '1',
    'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
    'PMIX_NAMESPACE': '123',
}
INTEL_MPI = {'PMI_RANK': '1', 'PMI_SIZE': '4', 'MPI_LOCALRANKID': '0', 'MASTER_ADDR': 'n1'}


@pytest.mark.parametrize(
    ('nodelist', 'host'),
    [
        ('n1', 'n1'),
        ('n1,n2', 'n1'),
        ('gpu[07-08,11],cpu3', 'gpu07'),
        ('gpu[3,5-7]', 'gpu3'),
        ('rack[1-2]node[04-09]-ib', 'rack1node04-ib'),
        ('my-host', 'my-host'),
    ],
)
def test_first_host(nodelist, host):
    assert first_host(nodelist) == host


def test_ranks_of_every_launcher():
    assert read_rank('pytorch', TORCHRUN) == Rank(3, 8, 1, 'a', 29500)
    assert read_rank('pytorch', TORCHRUN | {'MASTER_PORT': '1234'}, port=5).master_port == 1234
    place = read_rank('slurm', SLURM)
    assert (place.rank, place.world_size, place.local_rank) == (5, 16, 1)
    assert place.master_addr == 'gpu07'
    assert 12000 <= place.master_port < 32000
    assert read_rank('slurm', SLURM | {'SLURM_PROCID': '0'}).master_port == place.master_port
    assert read_rank('slurm', SLURM | {'SLURM_JOB_ID': '4712'}).master_port != place.master_port
    assert read_rank('slurm', SLURM, port=77).master_port == 77
    assert read_rank('slurm', SLURM | {'SLURM_NNODES': '1'}).master_addr == '127.0.0.1'
    # A step on a part of the job.
    step = SLURM | {'SLURM_STEP_NODELIST': 'gpu11', 'SLURM_STEP_NUM_TASKS': '4'}
    assert read_rank('slurm', step).master_addr == 'gpu11'
    assert read_rank('slurm', step).world_size == 4
    place = read_rank('mpi', OPEN_MPI)
    assert (place.rank, place.world_size, place.master_addr) == (1, 2, '127.0.0.1')
    place = read_rank('mpi', INTEL_MPI)
    assert (place.rank, place.world_size, place.local_rank, place.master_addr) == (1, 4, 0, 'n1')


@pytest.mark.parametrize(
    ('launcher', 'environ', 'message'),
    [
        ('pytorch', {}, 'RANK is not set.*torchrun'),
        ('pytorch', TORCHRUN | {'RANK': 'x'}, "RANK='x' is not a number"),
        ('pytorch', TORCHRUN | {'MASTER_PORT': 'x'}, "MASTER_PORT='x'"),
        ('slurm', {}, 'SLURM_PROCID is not set.*srun'),
        ('slurm', {k: v for k, v in SLURM.items() if 'NODELIST' not in k}, 'SLURM_JOB_NODELIST'),
        ('mpi', {}, 'OMPI_COMM_WORLD_RANK or .* is not set.*mpirun'),
        ('mpi', OPEN_MPI | {'OMPI_COMM_WORLD_LOCAL_SIZE': '1'}, 'Set MASTER_ADDR'),
    ],
)
def test_missing_variables(launcher, environ, message):
    with pytest.raises(LaunchError, match=message):
        read_rank(launcher, environ)


def test_launcher_none_and_unknown(monkeypatch, caplog):
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert launch.init_distributed('none') is None
    with pytest.raises(LaunchError, match='choose one of none, pytorch, slurm, mpi'):
        launch.init_distributed('horovod')


def test_single_process_group_on_the_cpu(monkeypatch):
    for name, value in {**TORCHRUN, 'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    try:
        place = launch.init_distributed('pytorch', backend='nccl', timeout=20)
        assert place is not None
        assert torch.distributed.get_backend() == 'gloo'
        from mmengine.dist import all_gather_object, collect_results, get_dist_info

        assert get_dist_info() == (0, 1)
        assert all_gather_object({'a': 1}) == [{'a': 1}]
        assert collect_results([1, 2, 3], 2) == [1, 2]
    finally:
        launch.shut_down()
    assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    chosen = []
    monkeypatch.setattr(torch.cuda, 'set_device', chosen.append)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=re.escape('process 1 of this machine has no GPU: 1 are')):
        launch.init_distributed('pytorch')
    # srun --gpus-per-task=1 shows one GPU to each task.
    assert launch._select_gpu('slurm', read_rank('slurm', SLURM)) == 0
    assert chosen == [0]


@pytest.mark.parametrize('unused', [True, False])
def test_model_wrapper_on_the_cpu(monkeypatch, unused):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    place = Rank(0, 2, 0, 'a', 1)
    cfg = Config(dict(find_unused_parameters=unused))
    configure_distributed(cfg, place, 'pytorch')
    assert cfg.launcher == 'pytorch'
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=unused,
    )
    cfg = Config(dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')))
    configure_distributed(cfg, place, 'slurm')
    assert cfg.model_wrapper_cfg == dict(type='MMFullyShardedDataParallel', device_id='cpu')
    # DistributedDataParallel refuses SyncBN on a CPU.
    norm = dict(type='SyncBN', requires_grad=True)
    cfg = Config(dict(sync_bn='torch', model=dict(norm_cfg=norm, heads=[dict(norm_cfg=norm)])))
    configure_distributed(cfg, place, 'pytorch')
    assert cfg.model.norm_cfg == cfg.model.heads[0].norm_cfg == dict(norm, type='BN')
    assert 'sync_bn' not in cfg
    cfg = Config()
    configure_distributed(cfg, None, 'none')
    assert cfg.launcher == 'none'
    assert 'model_wrapper_cfg' not in cfg
