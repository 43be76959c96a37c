# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From the address of a checkpoint, as configs write it, to a file that can be read.

MMEngine's loaders for these addresses download and unpickle in one step. Here they only download.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmrsfm.errors import CheckpointReadError, DigestMismatchError

# As in the names of torch.hub and of the OpenMMLab model zoos: resnet50-19c8e357.pth
_DIGEST_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.')


def locate(address: str | Path) -> Path | IO[bytes]:
    """Finds a checkpoint, downloading it into torch's cache where necessary.

    Args:
        address: A path; ``http(s)://``; ``torchvision://``, ``open-mmlab://``, ``mmcls://`` with
            the name of a model; ``s3://`` or ``petrel://`` where MMEngine's backend is installed.

    Returns:
        A local path (which need not exist), or the contents as an open file.

    Raises:
        CheckpointReadError: If the address is of an unknown kind, or cannot be fetched.
        DigestMismatchError: If what came is not what the digest in its name says.
    """
    text = str(address)
    scheme, separator, rest = text.partition('://')
    if isinstance(address, Path) or not separator:
        return Path(text).expanduser()
    if scheme == 'file':
        return Path(rest)
    if scheme in ('http', 'https'):
        return _download(text)
    if re.fullmatch(r'(\S+:)?(s3|petrel)', scheme):
        backend = get_file_backend(text, backend_args={'backend': 'petrel'})
        return io.BytesIO(backend.get(text))
    if scheme in ('modelzoo', 'torchvision'):
        urls = mmengine_checkpoint.get_torchvision_models()
    elif scheme in ('open-mmlab', 'openmmlab'):
        urls = mmengine_checkpoint.get_external_models()
        rest = mmengine_checkpoint.get_deprecated_model_names().get(rest, rest)
    elif scheme == 'mmcls':
        urls = mmengine_checkpoint.get_mmcls_models()
    else:
        raise CheckpointReadError(
            f'{text}: mmrsfm cannot read {scheme}:// safely. Download the file and give its path.'
        )
    if rest not in urls:
        raise CheckpointReadError(f'{text}: no model of that name is known')
    if urls[rest].startswith(('http://', 'https://')):
        return _download(urls[rest])
    return Path(mmengine_checkpoint._get_mmengine_home()) / urls[rest]


def _download(url: str) -> Path:
    name = Path(urlparse(url).path).name
    target = Path(torch.hub.get_dir()) / 'checkpoints' / name
    digest = _DIGEST_IN_NAME.search(name)
    with _rank_zero_first():
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(
                    url, str(target), digest[1] if digest else None, progress=os.isatty(0)
                )
            except RuntimeError as error:
                raise DigestMismatchError(f'{url}: {error}') from error
            except OSError as error:
                raise CheckpointReadError(
                    f'{url}: cannot be downloaded ({error}). Fetch it by other means and give its '
                    f'path, or put it at {target}.'
                ) from error
    return target


@contextmanager
def _rank_zero_first() -> Iterator[None]:
    """Lets rank 0 through alone, then the others, who then find what it made."""
    if get_rank() != 0:
        barrier()
    try:
        yield
    finally:
        if get_rank() == 0:
            barrier()
