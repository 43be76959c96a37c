# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packs two images that were transformed as one."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmrsfm.datasets.transforms.pack_inputs import PackInputs
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackImagePair(PackInputs):
    """Takes the two images of :class:`mmrsfm.LoadImagePair` apart, for models of pairs.

    Required key: ``img`` (H, W, 2C). Optional: ``valid_mask`` of its shape, ``gt_label``, the meta
    keys of :class:`mmrsfm.PackInputs`.

    Returns ``dict(inputs, data_samples)``; ``inputs`` is a list of two float32 tensors (C, H, W).
    The data preprocessor normalises each with the constants of one image. Invalid pixels are NaN,
    which it replaces by the mean.

    Raises:
        ConfigError: If there is no even number of channels, or the mask does not fit.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs; see the class."""
        image = results['img']
        valid = results.get('valid_mask')
        if isinstance(image, list) or image.ndim != 3 or image.shape[2] % 2:
            raise ConfigError(
                'PackImagePair takes one array (H, W, 2C) of two images (mmrsfm.LoadImagePair), '
                f'got {[one.shape for one in image] if isinstance(image, list) else image.shape}'
            )
        if valid is not None:
            if valid.shape != image.shape:
                raise ConfigError(
                    f'{results.get("img_path")}: the validity mask has shape {valid.shape}, the '
                    f'image {image.shape}: a transform of the pipeline does not know it. Use the '
                    'mmrsfm transforms for imagery with no-data pixels.'
                )
            image = np.where(valid, image, np.float32(np.nan))
        half = image.shape[2] // 2
        without = {key: value for key, value in results.items() if key != 'valid_mask'}
        return super().transform({**without, 'img': [image[..., :half], image[..., half:]]})
