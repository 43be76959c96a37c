# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A module of PyTorch as a graph of ONNX, compared with it number by number."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmrsfm.errors import ExportError, MissingDependencyError

OPSET = 18
TOLERANCE = 1e-4
# A file of ONNX is one message of protobuf, which ends at 2 GiB.
_LARGEST = 2**31 - 2**24


class Graph:
    """A graph, and how much it differs from the module.

    Args:
        module: In evaluation mode, float32, on the CPU; takes the images one by one, returns a
            tuple of tensors.
        images: Examples (B, C, H, W) of at least two images.
        inputs: Names of the inputs.
        outputs: Names of the outputs; ``None``: ``output0`` and so on.
        dynamic_batch: Whether any number of images can be run.
        size_divisor: Whether H and W may be any multiples of this; ``None``: as in the example.
        opset: Version of the operators of ONNX.
        tolerance: Largest difference, relative to the largest value (but at least 1).

    Attributes:
        proto: The ``onnx.ModelProto``.
        error: Largest difference, ``max|a - b| / max(1, max|b|)``, of the example and others.
        outputs: Names of the outputs.
        reference: What the module makes of the example.

    Raises:
        MissingDependencyError: Without onnx, onnxscript and onnxruntime.
        ExportError: If there is no graph of it, with what PyTorch says; or if its numbers are
            others.
    """

    def __init__(
        self,
        module: nn.Module,
        images: Sequence[Tensor],
        inputs: Sequence[str] = ('image',),
        outputs: Sequence[str] | None = None,
        dynamic_batch: bool = True,
        size_divisor: int | None = None,
        opset: int = OPSET,
        tolerance: float = TOLERANCE,
    ) -> None:
        _need('onnx', 'onnxscript', 'onnxruntime')
        size = sum(one.numel() * one.element_size() for one in module.state_dict().values())
        if size > _LARGEST:
            raise ExportError(
                f'the model has {size / 2**30:.1f} GiB of weights; a file of ONNX holds at most 2'
            )
        with torch.no_grad():
            # Before the export: tables for this size are made here, and become constants.
            self.reference = module(*images)
            self.outputs = tuple(outputs or (f'output{n}' for n in range(len(self.reference))))
            shape = _dynamic(dynamic_batch, size_divisor)
            if not all(bool(torch.isfinite(one).all()) for one in self.reference):
                raise ExportError(
                    'the model gives numbers that are not finite for usual images: was it trained '
                    'to the end, and are its weights whole?'
                )
            self.proto = _export(module, images, inputs, self.outputs, shape, opset)
        made = {one.domain: one.version for one in self.proto.opset_import}.get('')
        if made != opset:  # the exporter goes on with its own where it cannot convert
            raise ExportError(
                f'there is no graph of it with opset {opset}: PyTorch made one with opset {made}'
            )
        self.inputs = tuple(inputs)
        session: Any = None
        try:
            session = open_session(self.proto.SerializeToString())
        except Exception as error:
            raise ExportError(f'onnxruntime refuses the graph: {_first_line(error)}') from error
        self.error = self._compare(session, images, self.reference)
        for other in _variants(images, dynamic_batch, size_divisor):
            with torch.no_grad():
                wanted = module(*other)
            self.error = max(self.error, self._compare(session, other, wanted))
        if not self.error <= tolerance:
            raise ExportError(
                f'the graph gives other numbers than PyTorch: they differ by {self.error:.1e} of '
                f'the largest value, at most {tolerance:.0e} is accepted'
            )

    def _compare(self, session: Any, images: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
        feed = {name: x.numpy() for name, x in zip(self.inputs, images, strict=True)}
        shape = tuple(images[0].shape)
        try:
            found = session.run(None, feed)
        except Exception as error:
            raise ExportError(
                f'the graph does not run on images of {shape}: {_first_line(error)}'
            ) from error
        worst = 0.0
        for one, other in zip(found, wanted, strict=True):
            if one.shape != tuple(other.shape):
                raise ExportError(
                    f'for images of {shape} the graph gives {one.shape}, PyTorch '
                    f'{tuple(other.shape)}: sizes were fixed while it was made'
                )
            worst = max(worst, relative_difference(torch.from_numpy(one), other))
        return worst


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two results, relative to the largest value, but at least to 1.

    Args:
        found: What is judged.
        wanted: What it should be, of the same shape.

    Returns:
        ``max|a - b| / max(1, max|b|)``; infinite where one of them is not finite: a comparison
        with a number that is none would hold for anything.
    """
    if not wanted.numel():
        return 0.0
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1))
    return error if math.isfinite(error) else math.inf


def open_session(source: str | bytes, device: str = 'cpu') -> Any:
    """Opens a model of ONNX with as many threads as PyTorch has.

    Args:
        source: The file, or its content.
        device: For example ``'cpu'`` or ``'cuda:0'``.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        MissingDependencyError: Without onnxruntime, or for a GPU without its build for GPUs.
    """
    _need('onnxruntime')
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    where = torch.device(device)
    if where.type == 'cpu':
        return onnxruntime.InferenceSession(source, options, providers=['CPUExecutionProvider'])
    if where.type != 'cuda' or 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
        raise MissingDependencyError(
            f'onnxruntime cannot compute on {device!r} here, only on '
            f'{onnxruntime.get_available_providers()}: install onnxruntime-gpu, or take the CPU'
        )
    provider = ('CUDAExecutionProvider', {'device_id': where.index or 0})
    return onnxruntime.InferenceSession(
        source, options, providers=[provider, 'CPUExecutionProvider']
    )


def _dynamic(batch: bool, divisor: int | None) -> dict[int, Any] | None:
    axes = ([0] if batch else []) + ([2, 3] if divisor else [])
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC) or None


def _export(
    module: nn.Module,
    images: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shape: dict[int, Any] | None,
    opset: int,
) -> Any:
    # The exporter takes parameters by their names in forward: one that takes any number of images
    # has a single one.
    shapes = None if shape is None else ((shape,) * len(images),)
    with _silence():
        try:
            program: Any = torch.onnx.export(
                _Positional(module),
                tuple(images),
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            sizes = shape is not None and 2 in shape
            raise ExportError(
                f'PyTorch makes no graph of it: {_reason(error)}'
                + ('. Perhaps it does for a single size, without size_divisor' if sizes else '')
            ) from error
    return program.model_proto


class _Positional(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *images: Tensor) -> Any:
        return self.module(*images)


def _variants(images: Sequence[Tensor], batch: bool, divisor: int | None) -> Iterator[list[Tensor]]:
    """Other images, of other numbers and sizes where these are free."""
    count = len(images[0])
    sizes = [tuple(images[0].shape[2:])]
    if divisor:
        height, width = sizes[0]
        sizes = [(height + divisor, width), (height, width + 3 * divisor)]
        if height > divisor:
            sizes.append((height - divisor, width))
    for number, size in enumerate(sizes):
        if not batch and not divisor:
            return
        yield [_sampled(one, (1 + number if batch else count), size) for one in images]


def _sampled(images: Tensor, count: int, size: tuple[int, ...]) -> Tensor:
    """Images of the same values, in another order."""
    generator = torch.Generator().manual_seed(count)
    flat = images.flatten(2)
    shape = (count, size[0] * size[1])
    pixels = torch.randint(flat.shape[2], shape, generator=generator)
    number = torch.randint(len(flat), (count, 1), generator=generator)
    return flat[number, :, pixels].transpose(1, 2).unflatten(2, size).contiguous()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the many lines of the exporter."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of what really went wrong: the exporter wraps it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {lines[0][:300] if lines else "no reason is given"}'


def _need(*names: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f'{", ".join(missing)} must be installed for models in ONNX: '
            f'pip install {" ".join(missing)}'
        )
