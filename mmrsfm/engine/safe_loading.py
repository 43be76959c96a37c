# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Makes MMEngine read every file safely: ``load_from``, ``resume``, ``init_cfg``, annotations.

MMEngine's own reader of checkpoints falls back to unpickling, and so to running, what it cannot
read safely; annotations in pickles and YAML files may run code as well, when they are loaded. Our
tools import this module, which calls :func:`enable`; other people's runs do by ``custom_imports =
dict(imports=['mmrsfm.engine.safe_loading'])``. Nothing else in mmrsfm imports it, so that a bare
``import mmrsfm`` changes nothing.
"""

from __future__ import annotations

import pickle
from typing import IO, Any

import yaml  # type: ignore[import-untyped]
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import _process_mmcls_checkpoint

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.errors import DataError
from mmrsfm.utils.plain_pickle import load_plain_pickle

_PREFIXES = (
    '',
    'http://',
    'https://',
    'modelzoo://',
    'torchvision://',
    'open-mmlab://',
    'openmmlab://',
    'mmcls://',
    'pavi://',
    r'(\S+\:)?s3://',
    r'(\S+\:)?petrel://',
)


def load_from_safe_reader(filename: str, map_location: Any = None) -> dict[str, Any]:
    """The loader that is registered; see :func:`mmrsfm.checkpoints.read_checkpoint`.

    Args:
        filename: Path or address.
        map_location: As in :func:`torch.load`.

    Returns:
        The contents of the checkpoint, without the text of its config.
    """
    checkpoint = read_checkpoint(filename, map_location=map_location)
    if str(filename).startswith('mmcls://'):
        return _process_mmcls_checkpoint(checkpoint)
    return checkpoint


class PlainPickleHandler(PickleHandler):
    """MMEngine's handler of pickle files, for plain data and NumPy arrays only."""

    def load_from_fileobj(self, file: IO[bytes], **kwargs: Any) -> Any:
        """Reads a file; see :func:`mmrsfm.utils.plain_pickle.load_plain_pickle`.

        Args:
            file: The open file.
            **kwargs: Options of :func:`pickle.load`, which mean nothing here.

        Returns:
            Its content.

        Raises:
            DataError: If it is damaged, or names a class or a function. Nothing of it was run.
        """
        try:
            return load_plain_pickle(file.read(), arrays=True)
        except pickle.UnpicklingError as error:
            raise DataError(
                f'this pickle is refused: it {error}',
                path=getattr(file, 'name', None),
                hint='Nothing of it was run. Write annotations as json',
            ) from error


class SafeYamlHandler(YamlHandler):
    """MMEngine's handler of YAML files, without tags that make objects of any class."""

    def load_from_fileobj(self, file: IO, **kwargs: Any) -> Any:
        """Reads a file.

        Args:
            file: The open file.
            **kwargs: Options of :func:`yaml.load`, which mean nothing here.

        Returns:
            Its content.

        Raises:
            DataError: If it is no YAML, or has such a tag. Nothing of it was run.
        """
        try:
            return yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise DataError(
                f'this YAML file cannot be read safely: {error}', path=getattr(file, 'name', None)
            ) from error


def enable() -> None:
    """Redirects MMEngine's loaders of checkpoints, pickles and YAML files. Idempotent.

    Loaders of checkpoints that other packages have registered are redirected, too.
    """
    prefixes = {*_PREFIXES, *CheckpointLoader._schemes}
    CheckpointLoader.register_scheme(sorted(prefixes), load_from_safe_reader, force=True)
    register_handler(['pkl', 'pickle'])(PlainPickleHandler)
    register_handler(['yaml', 'yml'])(SafeYamlHandler)


enable()
