# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writes change maps to files that bear the names of their images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmcv
import mmengine.registry as roots
import numpy as np
from mmengine.visualization import LocalVisBackend
from mmengine.visualization.vis_backend import force_init_env

from mmrsfm.compat.opencd.registry import VISBACKENDS


@VISBACKENDS.register_module()
class CDLocalVisBackend(LocalVisBackend):
    """MMEngine's LocalVisBackend, whose pictures are ``vis_image/<name>.png``, without a step.

    Pictures of the single dates, where they are drawn, are ``vis_image/from/<name>.png`` and
    ``vis_image/to/<name>.png``.
    """

    @force_init_env
    def add_image(
        self,
        name: str,
        image: np.ndarray,
        image_from: np.ndarray | None = None,
        image_to: np.ndarray | None = None,
        step: int = 0,
        **kwargs: Any,
    ) -> None:
        """Writes pictures, uint8 (H, W, 3) in RGB; one of the same name is replaced."""
        for folder, picture in (('', image), ('from', image_from), ('to', image_to)):
            if picture is not None:
                path = Path(self._img_save_dir) / folder / f'{name}.png'
                mmcv.imwrite(mmcv.rgb2bgr(picture), str(path))


# Open-CD has it among MMEngine's own, so that it is found under any default scope.
if CDLocalVisBackend.__name__ not in roots.VISBACKENDS.module_dict:
    roots.VISBACKENDS.register_module(module=CDLocalVisBackend)
