# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Runs a function in two processes that see each other, for tests of what ranks exchange."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LIMIT = 120.0  # seconds, on a machine that does other things


def _one_rank(rank, function, folder, arguments, ranks):
    # Forked: the thread pool of the parent does not exist here.
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks
    )
    torch.save(function(rank, *arguments), folder / f'rank{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def run_ranks(function, folder, *arguments, ranks=2):
    """Calls ``function(rank, *arguments)`` in each rank of a gloo group.

    Args:
        function: Returns what the test compares: tensors, or containers of them.
        folder: An empty folder.
        *arguments: As they are in this process, which is forked: a spawned one would import
            everything again.
        ranks: Their number.

    Returns:
        A list of what each returned. It comes through files: tensors in shared memory would wait
        for the process that made them.
    """
    context = mp.get_context('fork')
    processes = [
        context.Process(target=_one_rank, args=(rank, function, folder, arguments, ranks))
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(LIMIT)
        codes = [process.exitcode for process in processes]
        assert codes == [0] * ranks, codes
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f'rank{rank}.pt', weights_only=True) for rank in range(ranks)]
