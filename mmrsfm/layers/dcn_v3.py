# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Deformable convolution of the third version, as a module.

DCNv3: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable
Convolutions", CVPR 2023, arXiv 2211.05778. Written anew from the published maths; parameter names
are those of the released weights.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.channel_norm import channel_norm
from mmrsfm.layers.dcn_v3_compiled import dcn_v3_compiled, extension_available, find_extension
from mmrsfm.layers.dcn_v3_sampling import DCNv3Geometry, dcn_v3_sampling

IMPLEMENTATIONS = ('auto', 'pytorch', 'compiled')
ACTIVATIONS: dict[str, type[nn.Module]] = {'GELU': nn.GELU, 'ReLU': nn.ReLU, 'SiLU': nn.SiLU}


def activation(act_type: str) -> nn.Module:
    """The activation ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.

    Raises:
        ConfigError: If it is none of them.
    """
    if act_type not in ACTIVATIONS:
        raise ConfigError(f'act_type {act_type!r} is not one of {sorted(ACTIVATIONS)}')
    return ACTIVATIONS[act_type]()


class DCNv3(nn.Module):
    """Samples of a map at learned places, weighted by learned masks, group by group.

    With the input ``u``::

        v = input_proj(u);  z = act(norm(depthwise_conv(u)))
        offset = linear(z);  mask = softmax over the taps of linear(z)
        o = sum over the taps of mask * v(tap + offset)          (see dcn_v3_sampling)
        o = o * (1 - c) + v * c,  c = sigmoid(linear(z))         (center_feature_scale)
        output_proj(o)

    Args:
        channels: Number of channels.
        kernel_size: Taps along each side.
        dw_kernel_size: Side of the depthwise convolution, odd; ``None``: ``kernel_size``.
        stride: Step between output pixels.
        pad: Padding; the output must be the input thinned out by ``stride``, that is
            ``2 * pad == dilation * (kernel_size - 1)``.
        dilation: Distance of the taps.
        groups: Number of groups; each has ``channels / groups`` channels.
        offset_scale: Multiplies the offsets and the regular grid of taps.
        act_type: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.
        norm_type: ``'LN'`` or ``'BN'``.
        center_feature_scale: Whether the output is blended with the map itself (InternImage-H, G).
        impl: ``'pytorch'``: plain PyTorch. ``'compiled'``: the extension ``DCNv3``, or an error.
            ``'auto'``: the extension for tensors on a CUDA device if it is installed; if it
            fails, one warning, and plain PyTorch from then on.

    Raises:
        ConfigError: If the arguments contradict each other.
        MissingDependencyError: If ``impl='compiled'`` and there is no extension that works.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        groups: int = 4,
        offset_scale: float = 1.0,
        act_type: str = 'GELU',
        norm_type: str = 'LN',
        center_feature_scale: bool = False,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ConfigError(f'DCNv3: {channels} channels do not divide into {groups} groups')
        if 2 * pad != dilation * (kernel_size - 1):
            raise ConfigError(
                f'DCNv3: kernel_size={kernel_size} and dilation={dilation} need '
                f'pad={dilation * (kernel_size - 1) / 2:g}, got {pad}'
            )
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        if dw_kernel_size % 2 == 0:
            raise ConfigError(f'DCNv3: dw_kernel_size must be odd, got {dw_kernel_size}')
        if impl not in IMPLEMENTATIONS:
            raise ConfigError(f'impl {impl!r} is not one of {IMPLEMENTATIONS}')
        if impl == 'compiled':
            find_extension()
        self.channels = channels
        self.impl = impl
        self.center_feature_scale = center_feature_scale
        self.geometry = DCNv3Geometry(kernel_size, stride, pad, dilation, groups, offset_scale)
        self.dw_conv = nn.Sequential(
            nn.Conv2d(
                channels, channels, dw_kernel_size, stride, dw_kernel_size // 2, groups=channels
            ),
            channel_norm(channels, norm_type, source='first'),
            activation(act_type),
        )
        taps = kernel_size**2
        self.offset = nn.Linear(channels, groups * taps * 2)
        self.mask = nn.Linear(channels, groups * taps)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(groups, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(groups))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets zero, masks equal, projections Xavier-uniform; all biases zero."""
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.offset, self.mask, self.input_proj, self.output_proj):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), C)."""
        value = self.input_proj(x)
        features = self.dw_conv(x.permute(0, 3, 1, 2))
        offset = self.offset(features)
        mask = self.mask(features)
        per_group = (*mask.shape[:3], self.geometry.groups, -1)
        mask = _softmax_over_taps(mask.view(per_group)).view(mask.shape)
        sampled = self._sample(value, offset, mask)
        if self.center_feature_scale:
            share = F.linear(
                features, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
            ).sigmoid()
            stride = self.geometry.stride
            centre = value[:, ::stride, ::stride]
            blended = torch.lerp(
                sampled.reshape(per_group),
                centre.reshape(per_group).to(sampled.dtype),
                share.unsqueeze(-1).to(sampled.dtype),
            )
            sampled = blended.reshape(sampled.shape)
        return self.output_proj(sampled)

    def _sample(self, value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        if self.impl == 'compiled':
            return dcn_v3_compiled(value, offset, mask, self.geometry)
        if self.impl == 'auto' and _on_its_device(value) and _Extension.usable():
            try:
                return dcn_v3_compiled(value, offset, mask, self.geometry)
            except RuntimeError as error:
                if isinstance(error, (ConfigError, torch.OutOfMemoryError)):
                    raise
                _Extension.give_up(error)
        return dcn_v3_sampling(value, offset, mask, self.geometry)

    def extra_repr(self) -> str:
        """Shows what no submodule shows."""
        settings = ', '.join(f'{k}={v}' for k, v in self.geometry._asdict().items())
        return f'channels={self.channels}, {settings}, impl={self.impl!r}'


def _on_its_device(value: Tensor) -> bool:
    """Whether the extension has code for where a tensor is."""
    return value.is_cuda


def _softmax_over_taps(x: Tensor) -> Tensor:
    """Softmax over the last dimension, by way of the first.

    On a CPU, PyTorch's softmax over so few numbers lying side by side takes ten times as long as
    over numbers that lie far apart, where it computes many of them at once.
    """
    return x.movedim(-1, 0).contiguous().softmax(dim=0).movedim(0, -1).contiguous()


class _Extension:
    """Whether ``impl='auto'`` still counts on the extension, for all modules of the process."""

    state: bool | None = None

    @classmethod
    def usable(cls) -> bool:
        if cls.state is None:
            cls.state = extension_available()
        return cls.state

    @classmethod
    def give_up(cls, error: Exception) -> None:
        cls.state = False
        warnings.warn(
            f'the compiled operator DCNv3 failed ({type(error).__name__}: {error}); plain PyTorch '
            "computes it from here on, with the same result. impl='pytorch' avoids this warning.",
            stacklevel=2,
        )
