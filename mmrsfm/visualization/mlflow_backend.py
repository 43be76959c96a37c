# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MLflow as it is today: where it keeps its runs, and pictures with a name that it takes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from mmengine.visualization import MLflowVisBackend as BaseMLflowVisBackend
from mmengine.visualization.vis_backend import force_init_env

from mmrsfm.errors import MissingDependencyError
from mmrsfm.registry import VISBACKENDS


@VISBACKENDS.register_module()
class MLflowVisBackend(BaseMLflowVisBackend):
    """MMEngine's MLflow backend, for MLflow 3 too.

    MMEngine's keeps runs in files below the work folder unless it is told a server, which MLflow 3
    refuses; here they are where MLflow itself keeps them (``MLFLOW_TRACKING_URI``, else a database
    in the current folder). And MMEngine's hands pictures on without a suffix or a step, an error in
    every version of MLflow: here they are ``<name>_<step>.png``.

    Args:
        save_dir: Folder for what is uploaded; the runner gives it.
        tracking_uri: Where runs are kept, e.g. ``'http://server:5000'``; ``None``: see above.
        **kwargs: As of MMEngine's MLflowVisBackend (``exp_name``, ``run_name``, ``tags``, ...).
    """

    def __init__(self, save_dir: str, tracking_uri: str | None = None, **kwargs: Any) -> None:
        super().__init__(save_dir, tracking_uri=tracking_uri, **kwargs)
        self._given_uri = tracking_uri

    def _init_env(self) -> None:
        try:
            mlflow: Any = import_module('mlflow')
        except ImportError as error:
            raise MissingDependencyError('MLflowVisBackend needs: pip install mlflow') from error
        self._tracking_uri: Any = self._given_uri or mlflow.get_tracking_uri()
        super()._init_env()

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Records a picture.

        Args:
            name: Of the picture.
            image: uint8 (H, W, 3) in RGB.
            step: Goes into its name.
            **kwargs: Not used.
        """
        self._mlflow.log_image(image, f'{name}_{step}.png')
