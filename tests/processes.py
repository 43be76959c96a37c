# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Commands in processes of their own that do not import everything again.

Importing PyTorch, MMEngine and the task libraries takes longer than what the tests do with them. A
forked process has what its parent has imported, and nothing that it does comes back.
"""

import json
import multiprocessing
import os
import runpy
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path

FORK = multiprocessing.get_context('fork')

# What each trainer of a task library imports first.
FOUNDATION = ('mmengine.runner', 'mmcv.ops')

# Stands for Python on a command line: it has the server run what it was given, and waits.
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b'.'], [0, 1, 2])
    server.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    answers = server.makefile()
    pid = int(answers.readline() or sys.exit(1))  # of what runs it: signals go there
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    sys.exit(int(answers.readline() or 1))
"""


def print_to(*streams) -> None:
    """What is printed goes to other files than the parent's (pytest has replaced those)."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    sys.stdout, sys.stderr = (os.fdopen(n, 'w', buffering=1, closefd=False) for n in (1, 2))


def _run_script(argv, folder, output) -> None:
    sys.modules['torch'].set_num_threads(1)  # the threads of the parent do not exist here
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    print_to(target, target)
    os.chdir(folder)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).parent))
    runpy.run_path(argv[0], run_name='__main__')


def run_forked(argv, folder) -> str:
    """What a script prints that is run in a fork of this process; it must succeed.

    Args:
        argv: Path of the script and its arguments.
        folder: Where it runs, an existing folder.
    """
    argv = [str(part) for part in argv]
    output = Path(folder) / 'output.txt'
    process = FORK.Process(target=_run_script, args=(argv, folder, output))
    process.start()
    process.join()
    text = output.read_text()
    assert process.exitcode == 0, f'{argv} ended with {process.exitcode}: {text[-3000:]}'
    return text


class FreshPython:
    """Python that has imported something, and nothing else.

    ``executable`` takes a script or ``-m`` and a module, and any environment and folder, as Python
    does. Nothing of this repository is on its path unless PYTHONPATH says so: mmrsfm is found
    because it is installed.

    Args:
        imports: What has been imported.
    """

    def __init__(self, imports=FOUNDATION):
        self.imports = imports

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp())  # the address of a socket is short
        self.executable = str(self.folder / 'python')
        address = str(self.folder / 'socket')
        Path(self.executable).write_text(CLIENT.format(python=sys.executable, address=address))
        Path(self.executable).chmod(0o755)
        environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        self.process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', __file__, address, *self.imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd='/',
            env=environment | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        )
        assert self.process.stdout.readline() == b'ready\n'
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait(120)  # a machine may be busy
        self.process.stdout.close()
        shutil.rmtree(self.folder)


def _be_python(argv, folder, environment, streams) -> None:
    """Runs what a command line of Python says."""
    print_to(*streams[1:])
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.executable, *argv = argv
    paths = [path for path in environment.get('PYTHONPATH', '').split(os.pathsep) if path]
    while argv[0] in ('-u', '-W'):
        del argv[: 1 + (argv[0] == '-W')]
    if argv[0] == '-m':
        sys.argv, sys.path[:1] = argv[1:], [folder, *paths]
        runpy.run_module(argv[1], run_name='__main__', alter_sys=True)
    else:
        sys.argv, sys.path[:1] = argv, [str(Path(argv[0]).parent), *paths]
        runpy.run_path(argv[0], run_name='__main__')


def _answer(connection) -> None:
    """Runs one command in a process that ends with the client, should that be killed."""
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile('rb') as message:
        process = FORK.Process(target=_be_python, args=(*json.loads(message.read()), streams))
    process.start()
    connection.sendall(f'{process.pid}\n'.encode())
    hung_up = select.poll()
    hung_up.register(connection, select.POLLHUP)
    while not wait([process.sentinel], 0.1):
        if hung_up.poll(0):
            process.kill()
    process.join()
    code = process.exitcode
    connection.sendall(str(code if code >= 0 else 128 - code).encode())


def _serve(address, *imports) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    ready = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what the imports print is no answer
    for name in imports:
        __import__(name)
    # As tests/conftest.py and the fixtures of the tools do: each takes seconds of a long config.
    sys.modules['mmengine.runner.runner'].collect_env = dict
    from yapf.yapflib import yapf_api

    yapf_api.FormatCode = lambda text, **_: (text, True)
    print('ready', file=ready, flush=True)
    children = set()
    while listener in select.select([listener, 0], [], [])[0]:  # until the other end is closed
        connection, _ = listener.accept()
        child = os.fork()
        if child == 0:
            try:
                listener.close()
                _answer(connection)
            finally:
                os._exit(0)
        connection.close()
        children = {pid for pid in children | {child} if os.waitpid(pid, os.WNOHANG)[0] == 0}
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == '__main__':
    _serve(*sys.argv[1:])
