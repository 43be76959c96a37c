# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Runs that are killed with SIGKILL and resumed, compared bit for bit with runs that are not.

Each run is a process of its own for each rank, forked from one that has imported everything.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DefaultScope

from mmrsfm.engine.launch import Rank, configure_distributed
from mmrsfm.engine.run_config import build_runner, find_last_checkpoint
from tests.processes import FORK, print_to

LIMIT = 1500.0  # seconds, on a machine that does other things


class Recorder(Hook):
    """Writes what each step was about, and ends the process after one of them."""

    priority = 'LOWEST'

    def __init__(self, file: Path, kill_after: int | None):
        self.file = file.open('w', buffering=1)
        self.kill_after = kill_after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        losses = {name: float(value).hex() for name, value in outputs.items()}
        rates = runner.optim_wrapper.get_lr()
        record = {
            'step': runner.iter + 1,
            'batch': batch_idx,
            'samples': names_of(data_batch),
            'losses': losses,
            'rates': [float(rate).hex() for rate in rates['lr']],
        }
        self.file.write(json.dumps(record) + '\n')
        if self.kill_after == runner.iter + 1:
            os.kill(os.getpid(), signal.SIGKILL)


class KillInValidation(Hook):
    """Ends the process in the validation after a step."""

    priority = 'VERY_LOW'

    def __init__(self, after: int):
        self.after = after

    def before_val_epoch(self, runner):
        if runner.iter == self.after:
            os.kill(os.getpid(), signal.SIGKILL)


def names_of(batch) -> list[str]:
    """What a batch holds, as far as it says so."""
    if 'index' in batch:
        return [str(int(one)) for one in batch['index']]
    samples = batch.get('data_samples') or []
    return [str(one.get('img_path', one.get('sample_idx', ''))) for one in samples]


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        steps: The records of each rank.
        codes: How each rank ended.
        state: Weights, optimizer, averages, if it ended by itself.
    """

    steps: list[list[dict]]
    codes: list[int]
    state: dict | None


def run(
    make: Callable[[], Config],
    folder: Path,
    ranks: int = 1,
    kill_after: int | None = None,
    kill_in_validation: bool = False,
    resume: bool = False,
) -> Outcome:
    """Trains what a config describes.

    Args:
        make: Returns the config, in each process.
        folder: For this run and those that continue it.
        ranks: Processes, under gloo.
        kill_after: The last rank is killed after this step; the others follow, as any launcher
            sees to.
        kill_in_validation: It is killed in the validation after that step.
        resume: Continue from the newest sound checkpoint.
    """
    folder.mkdir(exist_ok=True, parents=True)
    part = folder / f'part{len(list(folder.glob("part*")))}'
    part.mkdir()
    arguments = (make, folder, part, ranks, kill_after, kill_in_validation, resume)
    processes = [FORK.Process(target=_one_rank, args=(rank, *arguments)) for rank in range(ranks)]
    try:
        for process in processes:
            process.start()
        # Not their sentinels: workers of one that was killed hold those open.
        limit = time.monotonic() + LIMIT
        while any(process.exitcode is None for process in processes):
            assert time.monotonic() < limit, f'no rank ended within {LIMIT} s: {_last_words(part)}'
            if any(process.exitcode for process in processes):
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.join()
    steps = [
        [json.loads(line) for line in (part / f'rank{rank}.jsonl').read_text().splitlines()]
        for rank in range(ranks)
        if (part / f'rank{rank}.jsonl').is_file()
    ]
    file = part / 'state.pt'
    state = torch.load(file, weights_only=False) if file.is_file() else None
    outcome = Outcome(steps, [process.exitcode for process in processes], state)
    if kill_after is None:
        assert not any(outcome.codes), f'{outcome.codes}: {_last_words(part)}'
    else:
        assert outcome.codes[-1] == -signal.SIGKILL, f'{outcome.codes}: {_last_words(part)}'
        assert state is None
    return outcome


def check_resume(whole: Outcome, killed: Outcome, resumed: Outcome) -> int:
    """Asserts that a run that was killed and resumed is the run that was not.

    Returns:
        The step that it went on from.
    """
    done = resumed.steps[0][0]['step'] - 1
    for straight, before, after in zip(whole.steps, killed.steps, resumed.steps, strict=True):
        assert before == straight[: len(before)]
        assert after == straight[done:]
    assert_equal(whole.state, resumed.state, '')
    return done


def assert_equal(one, other, name: str) -> None:
    """Bit for bit, through containers."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    elif isinstance(one, dict):
        assert list(one) == list(other), name
        for key, value in one.items():
            assert_equal(value, other[key], f'{name}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), name
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f'{name}.{index}')
    else:
        assert one == other, name


def pairwise(factors: dict[str, Sequence]) -> list[dict]:
    """Few cases in which any two values of two factors meet."""
    names = list(factors)
    open_pairs = {
        (a, x, b, y)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        for x in factors[a]
        for y in factors[b]
    }
    cases = []
    everything = [dict(zip(names, values, strict=True)) for values in product(*factors.values())]
    random.Random(18).shuffle(everything)  # of orders that were tried, one that needs few
    while open_pairs:
        met = [
            {pair for pair in open_pairs if case[pair[0]] == pair[1] and case[pair[2]] == pair[3]}
            for case in everything
        ]
        best = max(range(len(everything)), key=lambda index: len(met[index]))
        cases.append(everything[best])
        open_pairs -= met[best]
    return cases


def note(row: str) -> None:
    """Adds a row to the table of $MMRSFM_RESUME_TABLE, if there is one."""
    table = os.environ.get('MMRSFM_RESUME_TABLE')
    if table:
        with open(table, 'a') as file:
            file.write(row + '\n')


def _last_words(part: Path) -> str:
    return '\n'.join(file.read_text()[-3000:] for file in sorted(part.glob('*.err')))


def _one_rank(rank, make, folder, part, ranks, kill_after, kill_in_validation, resume) -> None:
    torch.set_num_threads(1)  # the threads of the parent do not exist here
    output = os.open(part / f'rank{rank}.err', os.O_WRONLY | os.O_CREAT)
    print_to(output, output)
    DefaultScope._instance_dict.clear()
    cfg = make()
    place = None
    if ranks > 1:
        os.environ.update(LOCAL_RANK=str(rank))
        store = f'file://{part}/store'
        dist.init_process_group('gloo', init_method=store, rank=rank, world_size=ranks)
        place = Rank(rank, ranks, rank, '127.0.0.1', 0)
    configure_distributed(cfg, place, 'none' if place is None else 'pytorch')
    cfg.work_dir = str(folder / 'work')
    cfg.experiment_name = f'{part.name}_{rank}'
    if resume:
        cfg.resume, cfg.load_from = True, str(find_last_checkpoint(cfg.work_dir))
        torch.rand(17)  # another process would be elsewhere, too
    runner = build_runner(cfg)
    last = rank == ranks - 1
    at_step = kill_after if last and not kill_in_validation else None
    runner.register_hook(Recorder(part / f'rank{rank}.jsonl', at_step))
    if last and kill_in_validation:
        runner.register_hook(KillInValidation(kill_after))
    runner.train()
    if get_rank() == 0:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        state = {
            'model': model.state_dict(),
            'optimizer': runner.optim_wrapper.state_dict(),
            'averages': [one.state_dict() for one in averages],
            'random': torch.get_rng_state(),
        }
        torch.save(state, part / 'state.pt')
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()
    os._exit(0)
