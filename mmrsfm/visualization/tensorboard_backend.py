# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""TensorBoard by default, without demanding it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.visualization import TensorboardVisBackend as BaseTensorboardVisBackend

from mmrsfm.registry import VISBACKENDS


@VISBACKENDS.register_module()
class TensorboardVisBackend(BaseTensorboardVisBackend):
    """MMEngine's TensorBoard backend, which is silent where TensorBoard is not installed.

    It ends no run: where the package does not work, or its file cannot be written, that is logged
    once, and the run goes on without it.

    Every config has it (``configs/_base_/default_runtime.py``): ``tensorboard --logdir work_dirs``
    shows the curves and pictures of all runs. A file is begun with the first number or picture, so
    that a test, or a run that ends before, leaves none.

    Args:
        save_dir: Folder for the events; the runner gives it, ``<work_dir>/<time>/vis_data``.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self._config: Config | None = None
        self._works: bool | None = None

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Keeps the config until there is a number to go with it."""
        self._config = config

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Records a picture, uint8 (H, W, 3) in RGB; see the base class."""
        self._record(super().add_image, name, image, step)

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Records a number; what is none is left out. See the base class."""
        if isinstance(value, str | bytes | bool | list | tuple | dict | None):
            return  # the base class would warn each time
        self._record(super().add_scalar, name, value, step)

    def add_scalars(
        self,
        scalar_dict: dict[str, Any],
        step: int = 0,
        file_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Records numbers; see the base class."""
        for key, value in scalar_dict.items():
            self.add_scalar(key, value, step)

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        if self._works:
            try:
                super().close()
            except Exception as error:
                self._give_up(error)

    def _record(self, add: Callable[..., None], *what: Any) -> None:
        if self._works is None:
            self._works = find_spec('tensorboard') is not None
            if not self._works:
                print_log(
                    'TensorBoard is not installed (pip install tensorboard): this run writes its '
                    'numbers to vis_data/scalars.json alone, tools/analysis_tools/plot_logs.py '
                    'draws them',
                    logger='current',
                )
        if not self._works:
            return
        try:
            if self._config is not None:
                config, self._config = self._config, None
                super().add_config(config)
            add(*what)
        except Exception as error:  # a package that does not fit others, a disk that is full
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._works = False
        print_log(
            f'TensorBoard gets nothing more of this run ({type(error).__name__}: {error}); its '
            'numbers are in vis_data/scalars.json',
            logger='current',
            level=logging.WARNING,
        )
