# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Makes MMEngine read every checkpoint safely: ``load_from``, ``resume``, ``init_cfg``.

MMEngine's own reader falls back to unpickling, and so to running, what it cannot read safely. Our
tools import this module, which calls :func:`enable`; other people's runs do by ``custom_imports =
dict(imports=['mmrsfm.engine.safe_loading'])``. Nothing else in mmrsfm imports it, so that a bare
``import mmrsfm`` changes nothing.
"""

from __future__ import annotations

from typing import Any

from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import _process_mmcls_checkpoint

from mmrsfm.checkpoints import read_checkpoint

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


def enable() -> None:
    """Redirects all of MMEngine's checkpoint loaders, those of other packages too. Idempotent."""
    prefixes = {*_PREFIXES, *CheckpointLoader._schemes}
    CheckpointLoader.register_scheme(sorted(prefixes), load_from_safe_reader, force=True)


enable()
