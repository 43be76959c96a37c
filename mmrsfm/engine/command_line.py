# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the commands in ``tools/`` share: arguments, errors in one sentence, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mmrsfm.engine.launch import LAUNCHERS, configure_distributed, init_distributed, shut_down
from mmrsfm.engine.preemption import EXIT_REQUEUE, ignore_signals, stop_watching
from mmrsfm.errors import (
    ConfigError,
    DatasetNotFoundError,
    LaunchError,
    MMRSFMError,
    PreemptedError,
)

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_NO_READER = 1, 2, 130, 141


class _ConfigOptions(DictAction):
    """MMEngine's action; what is no KEY=VALUE is a usage error, and blanks in strings are kept."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'argument {option_string}: {value!r} is not KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)
        options = getattr(namespace, self.dest)
        for key, text in (value.split('=', 1) for value in values):
            # MMEngine takes every blank out, of folders and of names too.
            if isinstance(options[key], str):
                options[key] = text.strip('\'"')


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds CONFIG, --cfg-options and --debug."""
    parser.add_argument('config', help='config file, of mmrsfm or of any OpenMMLab library')
    add_config_options(
        parser,
        '--cfg-options',
        'override values of the config, e.g. train_cfg.max_epochs=5 val_cfg=None '
        'model.backbone.out_indices="[2,5,8,11]"',
    )
    parser.add_argument(
        '--debug', action='store_true', help='show tracebacks (also: MMRSFM_DEBUG=1)'
    )


def add_config_options(parser: argparse.ArgumentParser, flag: str, text: str) -> None:
    """Adds an option that takes KEY=VALUE for values of a config.

    Args:
        parser: What gets it.
        flag: Its name, e.g. ``'--cfg-options'``.
        text: Its help.
    """
    parser.add_argument(flag, nargs='+', action=_ConfigOptions, metavar='KEY=VALUE', help=text)


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --launcher, and the --local-rank that old launchers of torch pass."""
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='what started the processes'
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=None, help=argparse.SUPPRESS
    )


def start_distributed(cfg: Config, args: argparse.Namespace) -> None:
    """Starts torch.distributed as the command line and ``env_cfg.dist_cfg`` say.

    Args:
        cfg: The config, changed in place.
        args: With ``launcher`` and ``local_rank``.
    """
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    place = init_distributed(
        args.launcher, options.get('backend'), options.get('port'), options.get('timeout')
    )
    configure_distributed(cfg, place, args.launcher)


def run_command(
    main: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a command, and turns what a user can cause into one sentence.

    Every file is read safely meanwhile, and afterwards (:mod:`mmrsfm.engine.safe_loading`). A
    status other than 0 is also written into the file that MMRSFM_STATUS_FILE names: launchers that
    end the other processes tell the status of those.

    Args:
        main: The command.
        parser: Its arguments, among them ``--debug``.
        argv: The command line; by default the process's.

    Returns:
        The exit code: 0; 2 for a wrong argument or a file that is not there; 1 for any other error
        of mmrsfm; 75 of a training that a signal ended and that can go on; 130 after Ctrl-C; 141 if
        the reader of the output has gone (``| head``), as of a program that SIGPIPE ended. Other
        exceptions pass.
    """
    args = parser.parse_args(argv)
    from mmrsfm.engine import safe_loading  # not by an import of this module

    safe_loading.enable()
    debug = args.debug or os.environ.get('MMRSFM_DEBUG', '0') not in ('', '0')
    stopped = False
    try:
        main(args)
        sys.stdout.flush()  # here, not when the interpreter ends: the pipe may be closed
    except BrokenPipeError:
        if not _drop_closed_pipes():
            raise
        return EXIT_NO_READER
    except KeyboardInterrupt:
        _say(parser, 'interrupted. A training continues with --resume.')
        return EXIT_INTERRUPTED
    except PreemptedError as error:
        ignore_signals()  # all is saved; another one would change the status
        _write_status(EXIT_REQUEUE)
        _say(parser, str(error))
        stopped = True
    except (MMRSFMError, FileNotFoundError, PermissionError) as error:
        usage = (ConfigError, LaunchError, DatasetNotFoundError, FileNotFoundError)
        status = EXIT_USAGE if isinstance(error, usage) else EXIT_FAILED
        _write_status(status)
        if debug:
            raise
        reason = str(error)
        if not isinstance(error, MMRSFMError) and error.filename is not None:
            reason = f'{error.filename}: {error.strerror}'
        _say(parser, f'error: {reason}\n(--debug shows where)')
        return status
    finally:
        stop_watching()
    # Only now: after an error, leaving the group could wait for ranks that wait for this one.
    shut_down()
    return EXIT_REQUEUE if stopped else 0


def _drop_closed_pipes() -> bool:
    """Sends the output nowhere if nobody reads it; False if it was another pipe that broke."""
    dropped = False
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
        except (OSError, ValueError, AttributeError):  # replaced by something without a file
            continue
        if hasattr(select, 'poll'):
            poll = select.poll()
            poll.register(number, 0)
            closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
        else:
            closed = True  # Windows
        if closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            # What is still buffered is written when the interpreter ends.
            os.dup2(nowhere, number)
            os.close(nowhere)
            dropped = True
    return dropped


def _write_status(status: int) -> None:
    path = os.environ.get('MMRSFM_STATUS_FILE')
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_text(f'{status}\n')


def _say(parser: argparse.ArgumentParser, text: str) -> None:
    rank = os.environ.get('RANK')
    where = parser.prog if rank is None else f'{parser.prog} [rank {rank}]'
    print(f'{where}: {text}', file=sys.stderr, flush=True)
