# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reading checkpoint files without running anything that is in them."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from mmrsfm.checkpoints import published
from mmrsfm.checkpoints.inert import STAND_INS, RefusedContentError, settle
from mmrsfm.checkpoints.scanning import NotACheckpointError, file_format, named_globals
from mmrsfm.errors import CheckpointReadError, DigestMismatchError, UnsafeCheckpointError

# MMEngine writes the config as text and, on resuming, runs it as Python.
_CONFIG_TEXT = ('config', 'cfg')
_PLAIN = {
    '_codecs.encode',
    'builtins.bytearray',
    'builtins.complex',
    'builtins.set',
    'collections.Counter',
    'collections.OrderedDict',
}
_LOCK = threading.RLock()


def read_checkpoint(
    path: str | Path | IO[bytes],
    sha256: str | None = None,
    md5: str | None = None,
    map_location: Any = 'cpu',
    keep_config_text: bool = False,
) -> dict[str, Any]:
    """Reads a checkpoint of torch (zip or legacy format) or safetensors; nothing in it is run.

    Beside tensors and plain Python values it may hold ``argparse.Namespace``, NumPy scalars and
    arrays, and MMEngine's ``HistoryBuffer``. Anything else is refused.

    Args:
        path: A local file, anything that :func:`mmrsfm.checkpoints.sources.locate` finds (a URL,
            ``torchvision://...``), or an open binary file.
        sha256: Digest that the file must have, whole or its first 8 or more hexadecimal digits.
            Default: where the file has the name of one whose authors published its digest, that
            (see :mod:`mmrsfm.checkpoints.published`).
        md5: The same for MD5, which some projects publish. It detects damage, not forgery.
        map_location: As in :func:`torch.load`.
        keep_config_text: Whether the text of the config that MMEngine stored is kept, under
            ``meta['config_text']``. It is dropped otherwise, also from the message hub, because
            ``Runner.resume`` would run ``meta['config']``, and inferencers the others.

    Returns:
        The contents, a dict. Those of a ``.safetensors`` file become ``state_dict`` and ``meta``.

    Raises:
        CheckpointReadError: If the file is missing, damaged, or not a checkpoint.
        UnsafeCheckpointError: If it names a class that is not on the list above.
        DigestMismatchError: If it has another digest.
    """
    if not isinstance(path, str | Path):
        return _read(path, str(getattr(path, 'name', 'checkpoint')), sha256, md5, map_location,
                     keep_config_text)  # fmt: skip
    from mmrsfm.checkpoints.sources import locate

    local = locate(path)
    if not isinstance(local, Path):
        return _read(local, str(path), sha256, md5, map_location, keep_config_text)
    if not local.is_file():
        what = 'is a folder' if local.is_dir() else 'does not exist'
        raise CheckpointReadError(f'{local}: {what}; give the path of a checkpoint file')
    known = published.SHA256.get(local.name) if sha256 is None and md5 is None else None
    with local.open('rb') as file:
        if known is not None:
            _check_published(file, local, known)
        return _read(file, str(local), sha256, md5, map_location, keep_config_text)


def file_digests(path: str | Path | IO[bytes]) -> dict[str, str]:
    """The sha256 and md5 of a file, in hexadecimal."""
    if isinstance(path, str | Path):
        with Path(path).open('rb') as file:
            return file_digests(file)
    digests = {'sha256': hashlib.sha256(), 'md5': hashlib.md5(usedforsecurity=False)}
    path.seek(0)
    while chunk := path.read(1 << 20):
        for digest in digests.values():
            digest.update(chunk)
    path.seek(0)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _read(
    file: IO[bytes],
    where: str,
    sha256: str | None,
    md5: str | None,
    map_location: Any,
    keep_config_text: bool,
) -> dict[str, Any]:
    _check_digests(file, where, {'sha256': sha256, 'md5': md5})
    kind = file_format(file)
    if kind == 'tar':
        raise UnsafeCheckpointError(
            f'{where}: this is the tar format of torch before 0.1.10, which cannot be read safely. '
            'If you trust it, load it with the torch of its time and save its state_dict again.'
        )
    content: Any
    if kind == 'safetensors':
        content = _read_safetensors(file, where, map_location)
    else:
        _check_names(file, where)
        content = _unpickle(file, where, map_location)
    if not isinstance(content, dict):
        raise CheckpointReadError(
            f'{where}: holds a {type(content).__name__}, not a dict of tensors'
        )
    _drop_config_text(content, keep_config_text)
    return content


def _check_digests(file: IO[bytes], where: str, wanted: Mapping[str, str | None]) -> None:
    stated = {name: value.lower() for name, value in wanted.items() if value is not None}
    for name, value in stated.items():
        if not re.fullmatch(r'[0-9a-f]{8,64}', value):
            raise DigestMismatchError(
                f'{where}: {name}={value!r} is no digest: give 8 or more hexadecimal digits'
            )
    if not stated:
        return
    actual = file_digests(file)
    for name, value in stated.items():
        if not actual[name].startswith(value):
            raise DigestMismatchError(
                f'{where}: its {name} is {actual[name]}, and {value} was asked for. The file is '
                'damaged, or it is another one: fetch it again, or correct the digest.'
            )


def _check_published(file: IO[bytes], path: Path, known: str) -> None:
    actual = file_digests(file)['sha256']
    if actual != known:
        raise DigestMismatchError(
            f'{path}: its authors publish a file of this name with the sha256 {known}; this one '
            f'has {actual}. It is damaged: fetch it again. Or it is another file, a converted one '
            'perhaps: give it another name, or state its own digest as sha256.'
        )


def _check_names(file: IO[bytes], where: str) -> None:
    try:
        names = named_globals(file)
    except NotACheckpointError as error:
        text = str(error)
        if 'TorchScript' in text:
            raise UnsafeCheckpointError(f'{where}: {text}') from error
        raise CheckpointReadError(f'{where}: not a checkpoint, {text}') from error
    # Names in torch itself are left to torch's own table, which is short.
    foreign = sorted(
        name
        for name in names
        if name not in STAND_INS and name not in _PLAIN and not name.startswith('torch.')
    )
    if foreign:
        raise _unsafe(where, ', '.join(foreign))


def _unsafe(where: str, names: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f'{where}: refused, because it asks for {names}. A checkpoint may hold tensors, plain '
        'values, argparse.Namespace, NumPy arrays and HistoryBuffer; anything else could run code. '
        'If you know where the file comes from, extract its state_dict in an isolated environment '
        'and save that.'
    )


def _unpickle(file: IO[bytes], where: str, map_location: Any) -> Any:
    try:
        with _only_stand_ins():
            content = torch.load(file, map_location=map_location, weights_only=True)
        return settle(content)
    except RefusedContentError as error:
        raise _unsafe(where, str(error)) from error
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        if found:
            raise _unsafe(where, found[1]) from error
        raise UnsafeCheckpointError(f'{where}: refused: {_first_line(error)}') from error
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        # torch raises many types for damaged input, from KeyError to RuntimeError.
        raise CheckpointReadError(
            f'{where}: cannot be read, it is damaged or truncated '
            f'({type(error).__name__}: {_first_line(error)})'
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    # torch puts the reason after a page of advice.
    reasons = [line for line in lines if 'WeightsUnpickler error' in line]
    return (reasons or lines or ['no message'])[0].strip()


@contextmanager
def _only_stand_ins() -> Iterator[None]:
    """Makes the stand-ins the whole of torch's additional allow-list, for the time of one load.

    Other packages add to that list when they are imported (MMEngine adds ``getattr``): what they
    added is put aside, and put back afterwards.
    """
    allowed: list[Callable | tuple[Callable, str]] = [
        (stand_in, name) for name, stand_in in STAND_INS.items()
    ]
    with _LOCK:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _read_safetensors(file: IO[bytes], where: str, map_location: Any) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        raw = file.read()
        length = int.from_bytes(raw[:8], 'little')
        texts = json.loads(raw[8 : 8 + length]).get('__metadata__', {})
        state = load(raw)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise CheckpointReadError(f'{where}: damaged safetensors file ({error})') from error
    meta: dict[str, Any] = {}
    for key, text in texts.items():
        try:
            meta[key] = json.loads(text) if key.startswith('mmrsfm_') else text
        except ValueError as error:
            raise CheckpointReadError(f'{where}: {key} in its metadata is no JSON') from error
    if isinstance(map_location, str | torch.device):
        state = {name: tensor.to(map_location) for name, tensor in state.items()}
    return {'state_dict': state, 'meta': meta}


def _drop_config_text(content: dict[str, Any], keep: bool) -> None:
    # The inferencers of the OpenMMLab libraries, given no config, run the one of the message hub.
    hub = content.get('message_hub')
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    if isinstance(info, dict):
        for key in _CONFIG_TEXT:
            info.pop(key, None)
    meta = content.get('meta')
    if not isinstance(meta, dict):
        return
    texts = [meta.pop(key) for key in _CONFIG_TEXT if key in meta]
    if keep and texts:
        meta['config_text'] = '\n'.join(str(text) for text in texts)
