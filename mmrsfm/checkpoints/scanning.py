# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Which classes and functions a checkpoint file names, found without unpickling anything.

The guard itself is ``torch.load(weights_only=True)`` with the table of :mod:`.inert`. This scan
comes before it: it names the offender exactly, and it refuses what is not a torch file at all.
"""

from __future__ import annotations

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from typing import IO, Any

# First number in a file of torch.save before version 1.6 (documented in torch/serialization.py).
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_PICKLES_IN_LEGACY_FILE = 5
_PUSHES_TEXT = {'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'UNICODE'}


class NotACheckpointError(Exception):
    """The file has not the form of a torch checkpoint; the message says what it is."""


def file_format(file: IO[bytes]) -> str:
    """``'zip'``, ``'tar'``, ``'safetensors'`` or ``'pickle'``, by the first bytes of the file."""
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if head.startswith(b'PK\x03\x04'):
        return 'zip'
    if head[257:262] == b'ustar':
        return 'tar'
    # A little-endian length of less than 2**40, then JSON.
    if len(head) > 9 and head[5:8] == b'\0\0\0' and head[8:9] == b'{':
        return 'safetensors'
    return 'pickle'


def named_globals(file: IO[bytes]) -> set[str]:
    """Full names, such as ``'collections.OrderedDict'``, of everything that the file refers to.

    Raises:
        NotACheckpointError: If the file is not one of torch's two formats, or is damaged.
    """
    try:
        if file_format(file) == 'zip':
            return _globals_of_zip(file)
        return _globals_of_legacy(file)
    except NotACheckpointError:
        raise
    except Exception as error:
        # The parsers of the standard library raise many types for damaged input.
        raise NotACheckpointError(f'it is damaged or truncated ({error})') from error
    finally:
        file.seek(0)


def _globals_of_zip(file: IO[bytes]) -> set[str]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(name.endswith('/constants.pkl') or '/code/' in name for name in names):
            raise NotACheckpointError(
                'it is a TorchScript program, which holds code; save the state_dict instead'
            )
        pickles = [name for name in names if name.split('/', 1)[-1] == 'data.pkl']
        if len(pickles) != 1:
            raise NotACheckpointError('it is a zip archive, but not one that torch.save wrote')
        with archive.open(pickles[0]) as stream:
            return {name for name, _ in _instructions(stream) if name is not None}


def _globals_of_legacy(file: IO[bytes]) -> set[str]:
    found: set[str] = set()
    magic: Any = None
    for index in range(_PICKLES_IN_LEGACY_FILE):
        for name, value in _instructions(file):
            if name is not None:
                found.add(name)
            if index == 0 and isinstance(value, int) and not isinstance(value, bool):
                magic = value
        if magic != _LEGACY_MAGIC:
            # Named first: a plain pickle that runs code should be called that.
            if found:
                return found
            raise NotACheckpointError('it is not a file that torch.save wrote')
    return found


def _instructions(stream: IO[bytes]) -> Iterator[tuple[str | None, Any]]:
    """One pickle, instruction by instruction: a name that it looks up (or None), an argument."""
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        name = None
        if opcode.name in _PUSHES_TEXT:
            texts = [*texts[-1:], str(argument)]
        elif opcode.name in ('GLOBAL', 'INST'):
            name = _modern(*str(argument).split(' ', 1))
        elif opcode.name == 'STACK_GLOBAL':
            name = _modern(*texts) if len(texts) == 2 else 'a name that is computed'
        elif opcode.name.startswith('EXT'):
            name = f'copyreg extension {argument}'
        yield name, argument


def _modern(module: str, name: str) -> str:
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[(module, name)]
    return f'{IMPORT_MAPPING.get(module, module)}.{name}'
