# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the demonstrations share: commands with a log, a progress line and a memory of what is done.

A job is one of the commands that a user would type. A job that ran with the same command and the
same files is skipped; one that was interrupted goes on; one whose files changed begins anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

from mmrsfm.errors import MMRSFMError  # noqa: E402
from mmrsfm.utils.progress import duration  # noqa: E402

_STEP = re.compile(r'(Epoch|Iter)\(train\)\s+\[\s*(\d+)(?:/(\d+))?\]')
_ETA = re.compile(r'eta: ([0-9:]+|\d+ days?, [0-9:]+)')
_TILES = re.compile(r'(\d+/\d+), .* elapsed, (.+ left)')
_LOSS = re.compile(r'\sloss: ([-\d.eE+naif]+)')


@dataclass
class Job:
    """One command with its log, and whether it was done before.

    Attributes:
        name: Shown on the progress line.
        command: The command.
        folder: Its work directory.
        output: Glob pattern, in ``folder``, of what it leaves.
        inputs: Files on which the result depends; a change makes the job run again.
    """

    name: str
    command: list[str]
    folder: Path
    output: str
    inputs: list[Path] = field(default_factory=list)

    @property
    def stamp(self) -> str:
        """Digest of the command and of the configs that it names."""
        digest = hashlib.sha256(' '.join(self.command[1:]).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    @property
    def file_name(self) -> str:
        """The name, as a part of file names."""
        return self.name.replace(' ', '_').replace('/', '_')

    @property
    def stamp_file(self) -> Path:
        """Where the digest of a finished run is kept."""
        return self.folder / f'.{self.file_name}.done'

    @property
    def start_file(self) -> Path:
        """Where the digest of a run that was started is kept."""
        return self.folder / f'.{self.file_name}.started'

    def prepare(self) -> None:
        """Makes the folder; empties it if what lies there came from other inputs.

        A training would resume from it, find itself at the end, and leave the old result.
        """
        marks = [file for file in (self.start_file, self.stamp_file) if file.exists()]
        if any(file.read_text() != self.stamp for file in marks):
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start_file.write_text(self.stamp)

    def is_done(self) -> bool:
        """Whether the job ran with these inputs, and its output is still there."""
        return (
            self.stamp_file.exists()
            and self.stamp_file.read_text() == self.stamp
            and any(self.folder.glob(self.output))
        )


def cores() -> int:
    """Processor cores that this process may use, which can be fewer than there are."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(jobs: list[Job], threads: int) -> None:
    """Runs jobs at the same time and shows one line of progress for each.

    Raises:
        SystemExit: If one fails; its log is named, and the others are ended.
    """
    jobs = [job for job in jobs if not job.is_done() or print(f'  {job.name}: done before')]
    running = []
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': str(max(1, threads // max(1, len(jobs)))),
        'PYTHONUNBUFFERED': '1',
    }
    for job in jobs:
        job.prepare()
        log = job.folder / f'{job.file_name}.log'
        handle = log.open('w')
        process = subprocess.Popen(
            job.command, stdout=handle, stderr=subprocess.STDOUT, cwd=Path.cwd(), env=environment
        )
        running.append((job, process, log, handle, time.monotonic()))
    try:
        _watch(running)
    finally:
        for _, process, _, handle, _ in running:
            if process.poll() is None:
                process.terminate()
                process.wait()
            handle.close()


def _watch(running: list) -> None:
    waiting = list(running)
    interval = 0.5 if sys.stdout.isatty() else 15.0
    shown = time.monotonic()
    while waiting:
        time.sleep(0.2)
        for entry in list(waiting):
            job, process, log, _, start = entry
            if process.poll() is None:
                continue
            waiting.remove(entry)
            if process.returncode != 0:
                tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
                raise SystemExit(f'\n{tail}\nerror: {job.name} failed; its log is {log}')
            if not any(job.folder.glob(job.output)):
                raise SystemExit(f'error: {job.name} left no {job.folder / job.output}; see {log}')
            job.stamp_file.write_text(job.stamp)
            clear = '\r\x1b[K' if sys.stdout.isatty() else ''
            print(f'{clear}  {job.name}: done in {duration(time.monotonic() - start)}', flush=True)
        if waiting and time.monotonic() - shown >= interval:
            shown = time.monotonic()
            line = '; '.join(f'{job.name}: {status(log)}' for job, _, log, _, _ in waiting)
            if sys.stdout.isatty():
                print(f'\r  {line}\x1b[K', end='', flush=True)
            else:
                print(f'  {line}', flush=True)


def status(log: Path) -> str:
    """How far a training is, from the last line that MMEngine's logger wrote; or a map."""
    for line in reversed(log.read_text(errors='replace').splitlines()):
        tiles = _TILES.search(line)
        if tiles:
            return f'tile {tiles[1]}, {tiles[2]}'
        step = _STEP.search(line)
        if step:
            eta, loss = _ETA.search(line), _LOSS.search(line)
            at = f'epoch {step[2]}' if step[1] == 'Epoch' else f'iteration {step[2]}/{step[3]}'
            left = f', {eta[1]} left' if eta else ''
            value = f', loss {float(loss[1]):.3f}' if loss else ''
            return at + value + left
    return 'starting'


def run_all(jobs: list[Job], threads: int) -> None:
    """Runs jobs, as many at a time as there are cores."""
    for first in range(0, len(jobs), threads):
        run_jobs(jobs[first : first + threads], threads)


def read_arguments(about: str, name: str, seeds: int) -> argparse.Namespace:
    """The arguments of a demonstration that pretrains: ``work_dir``, ``seeds``, ``data_only``.

    Args:
        about: What the program does; its first line is shown.
        name: The name of the default work folder, ``work_dirs/quickstart_<name>``.
        seeds: The default number of pretraining runs.
    """
    parser = argparse.ArgumentParser(description=about.split('\n')[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / f'quickstart_{name}')
    parser.add_argument('--seeds', type=int, default=seeds, help='pretraining runs')
    parser.add_argument('--data-only', action='store_true', help='prepare the data and stop')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds must be at least 1, got {args.seeds}')
    return args


def base_configs() -> list[Path]:
    """The files that configs inherit: a job whose files changed begins anew."""
    return sorted((REPO / 'configs' / '_base_').rglob('*.py'))


def pretrain(config: Path, work: Path, seeds: int, data: list[Path], threads: int) -> None:
    """Pretrains once for each seed, into ``work/seed<number>``.

    Args:
        config: The config.
        work: Folder for the runs.
        seeds: How many.
        data: Files that the data depend on.
        threads: Processor cores.
    """
    jobs = []
    for seed in range(seeds):
        folder = work / f'seed{seed}'
        command = python(
            'train.py', config, '--work-dir', folder, '--resume', 'auto',
            '--cfg-options', f'randomness.seed={seed}',
        )  # fmt: skip
        inputs = [config, *base_configs(), *data]
        jobs.append(Job(f'seed {seed}', command, folder, 'last_checkpoint', inputs))
    run_all(jobs, threads)


def python(script: str, *arguments: object) -> list[str]:
    """The command line of one of our tools."""
    return [sys.executable, str(REPO / 'tools' / script), *map(str, arguments)]


def latest_checkpoint(folder: Path) -> Path:
    """The checkpoint that a training names in ``last_checkpoint``, also in a moved folder."""
    named = Path((folder / 'last_checkpoint').read_text().strip())
    here = folder.absolute() / named.name
    return here if here.exists() else named


def has_finished(folder: Path) -> bool:
    """Whether a training by one of these jobs came to its end there; others leave checkpoints too.

    Args:
        folder: Its work directory.
    """
    return (folder / 'last_checkpoint').exists() and any(folder.glob('.*.done'))


def read_metrics(folder: Path) -> dict[str, float]:
    """The metrics of the newest test run below a work directory."""
    files = [path for path in folder.glob('*/*.json') if path.parent.name[:1].isdigit()]
    newest = max(files, key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text().splitlines()[-1])


def runner_for_tests(
    config: Path,
    checkpoint: Path | None,
    seed: int,
    work: Path,
    options: dict[str, Any] | None = None,
) -> Any:
    """A runner for tests, with trained weights or those that the seed gives.

    Args:
        config: The config.
        checkpoint: The weights; ``None``: those that the training of this seed began with.
        seed: The seed.
        work: Folder for logs.
        options: Values that override the config.
    """
    from mmengine.runner import Runner

    from mmrsfm.engine import run_config, safe_loading

    safe_loading.enable()
    cfg = run_config.load_config(config, options or {})
    cfg.work_dir, cfg.log_level = str(work), 'ERROR'
    cfg.randomness.seed = seed
    run_config.set_dataloader_defaults(cfg)
    if checkpoint is not None:
        cfg.load_from = str(checkpoint)
    runner = Runner.from_cfg(cfg)
    if checkpoint is None:
        runner.model.init_weights()
    return runner


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f' +- {statistics.stdev(values):4.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):5.1f}{deviation}'


def prepare_once(
    target: Path, build: Callable[[Path, Path], object], source: Path, origin: Path
) -> Path:
    """Makes a folder of data unless it is there and was made by the same code from the same source.

    Args:
        target: The folder.
        build: Makes it: takes the source and the folder to fill.
        source: The folder that it is made from.
        origin: A file that changes with the source: the stamp of the download.

    Returns:
        The stamp of the folder: an input of the jobs that read the data.
    """
    code = Path(build.__code__.co_filename).read_bytes()
    digest = hashlib.sha256(code + origin.read_bytes()).hexdigest()
    stamp = target / '.complete'
    if stamp.exists() and stamp.read_text() == digest:
        return stamp
    partial = target.with_name(target.name + '.partial')
    for folder in (partial, target):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    build(source, partial)
    (partial / '.complete').write_text(digest)
    partial.rename(target)
    return stamp


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run_command(main: Callable[[], None]) -> None:
    """Runs a demonstration; its jobs are ended with it, whichever way it is told to go."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        main()
    except MMRSFMError as error:
        raise SystemExit(f'error: {error}') from None
    except KeyboardInterrupt:
        print('\ninterrupted; run the same command again to continue.', file=sys.stderr)
        sys.exit(130)
