# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A real Slurm of one node, in a temporary folder, for the time of the tests."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = (
    *('munged', 'munge', 'slurmctld', 'slurmd'),
    *('srun', 'sbatch', 'sinfo', 'squeue', 'scancel', 'scontrol'),
)
_SEARCH = os.pathsep.join([os.environ.get('PATH', ''), '/usr/sbin', '/sbin'])

_CONFIG = """
ClusterName=mmrsfm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=test Nodes={host} Default=YES MaxTime=10 State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes={host} MaxTime=10 State=UP PriorityTier=2
"""


def missing_programs() -> list[str]:
    """What is not installed; tests/slurm/setup.sh installs it."""
    return [name for name in PROGRAMS if shutil.which(name, path=_SEARCH) is None]


class LocalSlurm:
    """Starts munged, slurmctld and slurmd; ends them, and what they started, by process id."""

    def __init__(self) -> None:
        # Short: the path of a socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix='slurm-', dir='/tmp'))
        self.processes: list[subprocess.Popen] = []
        self.environ = {
            key: value for key, value in os.environ.items() if not key.startswith('SLURM_')
        }
        self.environ['SLURM_CONF'] = str(self.folder / 'slurm.conf')
        self.environ['PATH'] = _SEARCH

    def __enter__(self) -> 'LocalSlurm':
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *command: str, **kwargs) -> subprocess.CompletedProcess:
        """Runs a command of this Slurm."""
        kwargs.setdefault('timeout', 20)
        kwargs.setdefault('env', self.environ)
        return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)

    def job_processes(self) -> list[int]:
        """Ids of living processes of jobs, and of commands that talk to this Slurm."""
        mark = f'SLURM_CONF={self.folder}/slurm.conf'.encode()
        daemons = {process.pid for process in self.processes}
        found = []
        for entry in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                own = b'slurmscriptd' in (entry / 'cmdline').read_bytes()  # slurmctld's child
                if not own and mark in (entry / 'environ').read_bytes().split(b'\0'):
                    found.append(int(entry.name))
        return [pid for pid in found if pid not in daemons]

    def stop(self) -> None:
        if (self.folder / 'slurm.conf').exists() and self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run('scancel', '--user', getpass.getuser())
            self._wait(lambda: not self.job_processes(), 10)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        for pid in self.job_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        for name in ('state', 'spool'):
            (self.folder / name).mkdir()
        key = self.folder / 'munge.key'
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._daemon(
            'munged',
            '--foreground',
            '--force',  # it dislikes folders below /tmp; this one is ours alone
            f'--socket={self.folder}/munge.socket',
            f'--key-file={key}',
            f'--pid-file={self.folder}/munged.pid',
            f'--log-file={self.folder}/munged.log',
            f'--seed-file={self.folder}/munged.seed',
        )
        self._require(lambda: (self.folder / 'munge.socket').exists(), 'munged')
        (self.folder / 'slurm.conf').write_text(
            _CONFIG.format(
                host=socket.gethostname().split('.')[0],
                folder=self.folder,
                user=getpass.getuser(),
                controller_port=_free_port(),
                node_port=_free_port(),
                cpus=max(2, os.cpu_count() or 1),
            )
        )
        self._daemon('slurmctld', '-D', '-i')
        self._daemon('slurmd', '-D')
        self._require(self._idle, 'slurmd')

    def _idle(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return 'idle' in self.run('sinfo', '--noheader', '--format=%T', timeout=5).stdout
        return False

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f'{name}.out').open('wb') as out:
            program = shutil.which(name, path=_SEARCH)
            assert program is not None
            self.processes.append(
                subprocess.Popen(
                    [program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=self.environ,
                )
            )

    def _require(self, condition, name: str) -> None:
        if not self._wait(condition, 30):
            logs = '\n'.join(
                f'--- {file.name}\n{file.read_text(errors="replace")[-1500:]}'
                for file in sorted([*self.folder.glob('*.log'), *self.folder.glob('*.out')])
            )
            raise RuntimeError(f'{name} did not start:\n{logs}')

    @staticmethod
    def _wait(condition, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.2)
        return bool(condition())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
