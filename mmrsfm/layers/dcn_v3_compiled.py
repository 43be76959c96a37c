# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The operator of DCNv3 in the compiled extension ``DCNv3``, where that is installed.

The extension comes with InternImage (OpenGVLab, MIT) and runs on CUDA devices. mmrsfm neither ships
nor needs it: it is looked for when it is first wanted, and an absent or broken one is no error
unless it was asked for by name.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmrsfm.errors import MissingDependencyError
from mmrsfm.layers.dcn_v3_sampling import DCNv3Geometry, check_shapes

PACKAGE = 'DCNv3'
_MOST_IMAGES_AT_ONCE = 256


def find_extension() -> ModuleType:
    """Imports the extension.

    Raises:
        MissingDependencyError: If it is not installed, or cannot be imported (built for another
            version of PyTorch or CUDA).
    """
    try:
        extension = importlib.import_module(PACKAGE)
    except Exception as error:  # a broken extension fails with whatever its loader raises
        raise MissingDependencyError(
            f'the compiled operator {PACKAGE} cannot be imported '
            f'({type(error).__name__}: {error}). '
            "Build InternImage's ops_dcnv3 against this PyTorch, or use impl='auto' or 'pytorch', "
            'which compute the same.'
        ) from error
    for function in ('dcnv3_forward', 'dcnv3_backward'):
        if not callable(getattr(extension, function, None)):
            raise MissingDependencyError(
                f'the package {PACKAGE} has no {function}: it is not the operator of InternImage'
            )
    return extension


def extension_available() -> bool:
    """Whether the extension can be imported."""
    try:
        find_extension()
    except MissingDependencyError:
        return False
    return True


def dcn_v3_compiled(value: Tensor, offset: Tensor, mask: Tensor, geometry: DCNv3Geometry) -> Tensor:
    """As :func:`mmrsfm.layers.dcn_v3_sampling.dcn_v3_sampling`, computed by the extension.

    Args:
        value: Shape (N, H, W, C), on a device that the extension supports.
        offset: Shape (N, H', W', groups * taps * 2).
        mask: Shape (N, H', W', groups * taps).
        geometry: Kernel, stride, padding, dilation, groups and scale.

    Returns:
        Shape (N, H', W', C).

    Raises:
        MissingDependencyError: If there is no extension that works.
        ConfigError: If shapes and geometry contradict each other.
    """
    check_shapes(value, offset, mask, geometry)
    kind = torch.promote_types(value.dtype, torch.float32)
    result = _Compiled.apply(value.to(kind), offset.to(kind), mask.to(kind), geometry)
    return result.to(value.dtype)


def _takes_remove_center() -> bool:
    """Later builds take one more argument; the package's version is all that tells."""
    try:
        numbers = importlib.metadata.version(PACKAGE).split('.')
        return (int(numbers[0]), int(numbers[1])) > (1, 0)
    except (importlib.metadata.PackageNotFoundError, ValueError, IndexError):
        return False


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, geometry: DCNv3Geometry
    ) -> Tensor:
        extension = find_extension()
        kernel, stride, pad, dilation, groups, scale = geometry
        channels = value.shape[3] // groups
        # Images are processed in equal portions.
        most = min(value.shape[0], _MOST_IMAGES_AT_ONCE)
        step = next(n for n in range(most, 0, -1) if value.shape[0] % n == 0)
        shape = (kernel, kernel, stride, stride, pad, pad, dilation, dilation)
        ctx.settings = (*shape, groups, channels, float(scale))
        ctx.tail = (step, 0) if _takes_remove_center() else (step,)
        inputs = (value.contiguous(), offset.contiguous(), mask.contiguous())
        ctx.save_for_backward(*inputs)
        return extension.dcnv3_forward(*inputs, *ctx.settings, *ctx.tail)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        extension = find_extension()
        inputs = ctx.saved_tensors
        grads = extension.dcnv3_backward(*inputs, *ctx.settings, grad.contiguous(), *ctx.tail)
        return (*grads, None)
