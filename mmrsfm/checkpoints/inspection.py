# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a checkpoint file holds, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmrsfm.checkpoints.layout import detect_layout
from mmrsfm.checkpoints.reading import file_digests, read_checkpoint
from mmrsfm.checkpoints.report import compact
from mmrsfm.checkpoints.sources import locate
from mmrsfm.checkpoints.traits import CONTRACT_KEY, SOURCE_KEY, TRAITS_KEY
from mmrsfm.checkpoints.unwrapping import unwrap
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import CheckpointReadError, UnknownLayoutError


def inspect_checkpoint(
    path: str | Path,
    sha256: str | None = None,
    md5: str | None = None,
    weights: str = 'auto',
) -> dict[str, Any]:
    """Reads a checkpoint safely and describes it.

    Args:
        path: File or address.
        sha256: Digest that it must have.
        md5: The same for MD5.
        weights: Entry that holds the weights, see :func:`mmrsfm.checkpoints.unwrap`.

    Returns:
        ``file``, ``bytes``, ``sha256``, ``md5``; ``entries`` of the file; ``steps`` and ``notes``
        of the unwrapping; ``layout``, ``origin``, ``licence``, ``norm_style`` or ``layout_error``;
        ``contract``, ``traits``, ``source``; ``tensors`` (name to shape and dtype), ``parameters``
        (their total number of elements), ``parts`` (the same for each part of the model); ``meta``
        without the text of the config, and that text under ``config_text``: it is never run.
    """
    content = read_checkpoint(path, sha256, md5, keep_config_text=True)
    found = unwrap(content, weights)
    text = found.meta.pop('config_text', None)
    result: dict[str, Any] = {'file': str(path)}
    local = locate(path)
    if isinstance(local, Path):
        result.update(bytes=local.stat().st_size, **file_digests(local))
    result['entries'] = {str(key): _describe(value) for key, value in content.items()}
    result.update(steps=found.steps, notes=found.notes)
    names = found.state
    try:
        layout = detect_layout(found.state, found.meta)
        result.update(layout=layout.name, origin=layout.origin, licence=layout.licence)
        result['norm_style'] = layout.norm_style
        names, left = layout.to_mmrsfm(found.state)
        if left:
            result['notes'].append(f'not in this layout: {compact(left)}')
    except UnknownLayoutError as error:
        result.update(layout=None, layout_error=str(error))
    for key, name in ((CONTRACT_KEY, 'contract'), (TRAITS_KEY, 'traits'), (SOURCE_KEY, 'source')):
        result[name] = found.meta.pop(key, None)
    if result['traits'] and result['traits'].get('norm_style'):
        result['norm_style'] = result['traits']['norm_style']
    result['tensors'] = {
        name: {'shape': list(value.shape), 'dtype': str(value.dtype).removeprefix('torch.')}
        for name, value in found.state.items()
    }
    result['parameters'] = sum(value.numel() for value in found.state.values())
    parts: dict[str, int] = {}
    for name, value in names.items():
        part = name.split('.', 1)[0]
        parts[part] = parts.get(part, 0) + value.numel()
    result['parts'] = parts
    result['meta'] = {str(key): _plain(value) for key, value in found.meta.items()}
    result['config_text'] = text
    return result


def contract_from_text(values: list[str]) -> dict[str, Any]:
    """A contract from the arguments of a command.

    Args:
        values: One path of a ``.json`` file, or items ``key=value``. Lists are written with commas
            (``band_names=B02,B03``), numbers as they are.

    Raises:
        CheckpointReadError: If they are neither.
    """
    if len(values) == 1 and values[0].endswith('.json'):
        try:
            stated = json.loads(Path(values[0]).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointReadError(f'{values[0]}: not a contract file ({error})') from error
        return ImageryContract.from_dict(stated).to_dict()
    stated = {}
    for item in values:
        key, separator, text = item.partition('=')
        if not separator:
            raise CheckpointReadError(
                f'contract: {item!r} is neither key=value nor the path of a .json file'
            )
        try:
            if key in ('mean', 'std'):
                stated[key] = [float(part) for part in text.split(',')]
            elif key in ('scale', 'offset', 'gsd'):
                several = ',' in text and key != 'gsd'
                stated[key] = [float(part) for part in text.split(',')] if several else float(text)
            elif key == 'band_names':
                stated[key] = [part.strip() for part in text.split(',')]
            else:
                stated[key] = text
        except ValueError as error:
            raise CheckpointReadError(f'contract: {item!r} is not a number') from error
    return ImageryContract.from_dict(stated).to_dict()


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'tensor {tuple(value.shape)}'
    if isinstance(value, Mapping):
        return f'{type(value).__name__} of {len(value)}'
    if isinstance(value, list | tuple | set):
        return f'{type(value).__name__} of {len(value)}'
    return _shorten(repr(value))


def _plain(value: Any) -> Any:
    """Something that JSON can hold; long things are shortened."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _shorten(value, 500)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and len(value) <= 200:
        return [_plain(item) for item in value]
    return _describe(value)


def _shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else f'{text[: limit - 3]}...'
