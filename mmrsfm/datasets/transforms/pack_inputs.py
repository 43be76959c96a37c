# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packs a sample for classification and pretraining."""

from __future__ import annotations

from typing import Any

import mmpretrain.datasets.transforms as mmpretrain_transforms
import numpy as np
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS

CARRIED_KEYS = ('band_names', 'geo', 'sensor')
_DRAWN_KEYS = ('mask_noise', 'scale_crop', 'modality_noise')


def pack_valid_mask(results: dict[str, Any]) -> torch.Tensor | None:
    """Returns the (C, H, W) bool mask, or ``None`` where the whole sample is valid.

    Raises:
        ConfigError: The image was moved by a transform that does not know the mask.
    """
    valid = results.get('valid_mask')
    image = results['img']
    if valid is None:
        return None
    if isinstance(image, list) or valid.shape != image.shape:
        shape = [one.shape for one in image] if isinstance(image, list) else image.shape
        raise ConfigError(
            f'{results.get("img_path")}: the validity mask has shape {valid.shape}, the image '
            f'{shape}: a transform of the pipeline does not know it. Use the mmrsfm transforms for '
            'imagery with no-data pixels.'
        )
    if valid.all():
        return None
    return torch.from_numpy(np.ascontiguousarray(valid.transpose(2, 0, 1)))


def pack_image(image: Any) -> Any:
    """(H, W, C) array to (C, H, W) tensor of the same type, contiguous; lists one by one."""
    if isinstance(image, list):
        return [pack_image(one) for one in image]
    if isinstance(image, np.ndarray) and image.ndim == 3:
        # Free where the image is still as it was read or resampled (bands first in memory).
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return mmpretrain_transforms.PackInputs.format_input(image)


@TRANSFORMS.register_module()
class PackInputs(mmpretrain_transforms.PackInputs):
    """mmpretrain's PackInputs, with what many-band imagery carries.

    Required keys: ``img`` (H, W, C), or a list of views. Optional: ``gt_label``, ``valid_mask``,
    ``mask_noise``, ``modality_noise``, ``scale_crop``, and the meta keys.

    Returns ``dict(inputs, data_samples)``: ``inputs`` (C, H, W) in the type of the image;
    ``data_samples`` an mmpretrain DataSample with, where present, the fields ``valid_mask`` (C, H,
    W) bool, ``mask_noise`` (V, L), ``modality_noise`` () and ``scale_crop`` (4,), and
    ``band_names``, ``sensor`` and ``scale`` among the meta information.

    Args:
        input_key: Key of the image.
        algorithm_keys: Further fields for the data sample.
        meta_keys: Further keys for the meta information, besides the usual ones.
    """

    def __init__(
        self,
        input_key: str = 'img',
        algorithm_keys: tuple[str, ...] = (),
        meta_keys: tuple[str, ...] = (),
    ) -> None:
        usual = mmpretrain_transforms.PackInputs.DEFAULT_META_KEYS
        keys = dict.fromkeys((*usual, *CARRIED_KEYS, *meta_keys))
        super().__init__(input_key, tuple(algorithm_keys), tuple(keys))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs; see the class."""
        image = results.pop(self.input_key)
        packed = super().transform(results)
        results[self.input_key] = image
        packed['inputs'] = pack_image(image)
        sample = packed['data_samples']
        for key in ('scale', 'offset'):
            if f'value_{key}' in results:
                sample.set_field(results[f'value_{key}'], key, field_type='metainfo')
        valid = pack_valid_mask({**results, 'img': image})
        if valid is not None:
            sample.set_field(valid, 'valid_mask')
        for key in _DRAWN_KEYS:
            if key in results:
                sample.set_field(torch.as_tensor(results[key]), key)
        return packed
