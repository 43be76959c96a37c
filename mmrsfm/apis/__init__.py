# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Inference on images and scenes, and timing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrsfm.apis.scene.inferencer import SceneInferencer
    from mmrsfm.apis.scene.scene_run import SceneResult

__all__ = ['SceneInferencer', 'SceneResult']


def __getattr__(name: str) -> Any:
    # Not at once: what only writes a map, or times a loader, needs no torch.
    if name in __all__:
        from mmrsfm.apis.scene import inferencer

        return getattr(inferencer, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
