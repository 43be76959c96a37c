# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Displaces one modality of a sample against the others by a map that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.randomness import derive_seed
from mmrsfm.registry import TRANSFORMS
from mmrsfm.utils.homography import as_homography

_CV_TYPES = ('uint8', 'uint16', 'int16', 'float32')


@TRANSFORMS.register_module()
class RandomHomography(BaseTransform):
    """Warps one modality by a random rotation, scale, shift and perspective.

    Makes a registration problem with a known answer out of images that cover the same ground. What
    comes from outside the image is invalid (False in ``valid_mask``); so is what is interpolated
    from invalid pixels. Images are interpolated bilinearly, and keep their type.

    The map is composed of a rotation and a scale about the centre, a shift, and displacements of
    the four corners; each number is uniform within its limit. It replaces ``homography`` if the
    sample has one (from the true, imperfect geometry of a pair) by the composition of both.

    Put it last, before packing: transforms that move pixels after it do not know ``homography``.

    Required keys: ``img`` (H, W, C) and ``modalities`` (name to number of channels), as
    :class:`mmrsfm.LoadModalities` leaves them. Added: ``homography``, float64 (3, 3), from the
    modalities that stay to the one that moves, in pixels, (0, 0) being the centre of the first
    pixel. Modified: ``img``, ``valid_mask``, ``img_shape``; with ``size`` also ``geo`` and label
    maps, which stay with the modalities that stay.

    Args:
        moving: The modality that is warped; the others stay. ``None``: the last.
        rotation: Largest angle in degrees, to both sides.
        scale: Smallest and largest factor of lengths; drawn on a logarithmic scale.
        shift: Largest shift along each axis, as a share of the edge of the result.
        perspective: Largest displacement of each corner along each axis, as a share of the edge of
            the result; 0: the map is a similarity.
        size: (H, W) of the middle part that is kept, so that fewer pixels come from outside;
            ``None``: all.
        prob: Probability of warping at all; otherwise ``homography`` is that of the sample, or the
            identity.
        seed: A number: the map of a sample depends on it and ``sample_idx`` alone, the same in
            every epoch and every run, for tests. ``None``: it is drawn anew each time, from the
            sample's generator.

    Raises:
        ConfigError: For limits out of range, or an unknown modality.
        ImageSizeError: If an image is smaller than ``size``.
    """

    def __init__(
        self,
        moving: str | None = None,
        rotation: float = 15.0,
        scale: Sequence[float] = (0.9, 1.1),
        shift: float = 0.05,
        perspective: float = 0.0,
        size: int | Sequence[int] | None = None,
        prob: float = 1.0,
        seed: int | None = None,
    ) -> None:
        low, high = scale
        if not 0 < low <= high:
            raise ConfigError(f'RandomHomography: scale={scale} must be two factors above 0')
        if not 0 <= rotation <= 180 or shift < 0:
            raise ConfigError(
                f'RandomHomography: rotation={rotation} lies in [0, 180] degrees, shift={shift} is '
                'not negative'
            )
        if not 0 <= perspective < 0.5:
            raise ConfigError(
                f'RandomHomography: perspective={perspective} must be in [0, 0.5): corners must '
                'not cross'
            )
        self.moving = moving
        self.rotation = rotation
        self.scale = (float(low), float(high))
        self.shift = shift
        self.perspective = perspective
        self.size = (size, size) if isinstance(size, int) else None if size is None else tuple(size)
        self.prob = prob
        self.seed = seed

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Warps; see the class."""
        geometry.refuse_boxes(results, 'RandomHomography')
        geometry.refuse_stored_numbers(results, 'bilinear')
        channels = self._channels(results)
        height, width = results['img'].shape[:2]
        size = self.size or (height, width)
        if height < size[0] or width < size[1]:
            raise ImageSizeError(
                f'{height} x {width} pixels (H x W) are less than size={size} of RandomHomography',
                path=results.get('img_path'),
            )
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        to_part = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float64)
        drawn = self._draw(results, size)
        known = results.get('homography')
        truth = drawn
        if known is not None:
            truth = drawn @ to_part @ as_homography(known) @ np.linalg.inv(to_part)
        results['homography'] = truth / truth[2, 2]
        moved, good = self._warp(results, channels, drawn @ to_part, size)
        geometry.crop(results, top, left, *size)
        results['img'] = results['img'].copy()
        results['img'][..., channels] = moved
        mask = results.get('valid_mask')
        mask = np.ones(results['img'].shape, bool) if mask is None else mask.copy()
        mask[..., channels] = good
        results['valid_mask'] = mask
        return results

    def _channels(self, results: dict[str, Any]) -> slice:
        modalities = results.get('modalities')
        if not modalities:
            raise ConfigError(
                'RandomHomography: the sample does not say which channels are which modality: load '
                'it with mmrsfm.LoadModalities'
            )
        names = list(modalities)
        moving = names[-1] if self.moving is None else self.moving
        if moving not in names:
            raise ConfigError(f'RandomHomography: moving={moving!r} is none of {names}')
        start = sum(modalities[name] for name in names[: names.index(moving)])
        return slice(start, start + modalities[moving])

    def _draw(self, results: dict[str, Any], size: Sequence[int]) -> np.ndarray:
        """The map in pixels of the result, float64 (3, 3)."""
        if self.seed is None:
            uniform: Any = np.random.uniform  # seeded for each sample by AddressedDataset
        else:
            index = results.get('sample_idx')
            if index is None:
                raise ConfigError(
                    'RandomHomography: with a seed, the sample needs its sample_idx, which '
                    "MMEngine's datasets give"
                )
            address = derive_seed('homography', self.seed, int(index))
            uniform = np.random.default_rng(address).uniform
        # All are drawn, whatever the limits are: the limits do not change what is drawn after them.
        angle = math.radians(uniform(-self.rotation, self.rotation))
        factor = math.exp(uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        height, width = size
        shift = uniform(-self.shift, self.shift, 2) * (width, height)
        corners = uniform(-self.perspective, self.perspective, (4, 2)) * (width, height)
        if uniform(0.0, 1.0) >= self.prob:
            return np.eye(3)
        right, bottom = width - 1.0, height - 1.0
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        centre = np.array([right / 2, bottom / 2])
        linear = np.array([[cos, -sin], [sin, cos]])
        similarity = np.eye(3)
        similarity[:2, :2] = linear
        similarity[:2, 2] = centre + shift - linear @ centre
        if not self.perspective:
            return similarity
        rectangle = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float32)
        bent = (rectangle + corners).astype(np.float32)
        return similarity @ cv2.getPerspectiveTransform(rectangle, bent)

    @staticmethod
    def _warp(
        results: dict[str, Any], channels: slice, matrix: np.ndarray, size: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The warped channels and which of their pixels are valid, both (H, W, channels)."""
        image = results['img'][..., channels]
        mask = results.get('valid_mask')
        good = np.ones(image.shape, bool) if mask is None else mask[..., channels]
        filled = image if mask is None else geometry.fill_invalid(image, good)
        if filled.dtype.name not in _CV_TYPES:
            filled = filled.astype(np.float32)
        planes, valid = [], []
        edges = size[1], size[0]
        for channel in range(image.shape[2]):
            plane = np.ascontiguousarray(filled[..., channel])
            # Beyond the edge the image goes on: no dark border for an encoder to hold on to. The
            # mask says that it is invalid.
            planes.append(
                cv2.warpPerspective(plane, matrix, edges, borderMode=cv2.BORDER_REPLICATE)
            )
            bad = (~good[..., channel]).astype(np.float32)
            bad = cv2.warpPerspective(
                bad, matrix, edges, borderMode=cv2.BORDER_CONSTANT, borderValue=1.0
            )
            valid.append(bad <= 0)
        return np.stack(planes, axis=2).astype(image.dtype), np.stack(valid, axis=2)

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
