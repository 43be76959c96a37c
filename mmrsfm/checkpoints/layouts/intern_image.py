# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""InternImage by itself: the released classifiers, and MTP's encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.checkpoints.layout import RenamingLayout, StateDict, apply_names, register_layout

_BACKBONE = ('patch_embed', 'levels')
_SIGNATURE = ('patch_embed.conv1.weight', 'levels.0.blocks.0.dcn.offset.weight')


def is_intern_image(state: Mapping[str, Any], prefix: str = '') -> bool:
    """Whether there is an InternImage under a prefix."""
    return all(prefix + name in state for name in _SIGNATURE)


@register_layout
class InternImageLayout(RenamingLayout):
    """The names are those of :class:`mmrsfm.InternImage`, without a prefix.

    The files of InternImage (``internimage_*_22kto1k_*.pth`` and the like) hold a classifier
    beside the backbone: ``conv_head``, ``head``, in the two largest models ``dcnv3_head_x*``,
    ``clip_projector``, ``fc_norm``. These stay as they are, below ``head.``, and a load into a
    backbone leaves them aside. MTP's ``last_internimage_*_encoder.pth`` holds the backbone only.
    """

    name = 'intern_image'
    origin = 'InternImage (Wang et al., CVPR 2023, arXiv 2211.05778), and the encoder file of MTP'
    licence = 'MIT'
    dropped = ('head.*',)
    keymap = KeyMap([(name, f'backbone.{name}') for name in _BACKBONE])

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return is_intern_image(state)

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        return apply_names(state, lambda name: self.keymap.forward(name) or f'head.{name}')

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`.

        Our own heads have no place there; the classifier of such a file has.
        """
        return apply_names(state, self._backward)

    def _backward(self, name: str) -> str | None:
        classifier = ('conv_head', 'head', 'dcnv3_head', 'clip_projector', 'fc_norm')
        rest = name.removeprefix('head.')
        if rest != name and rest.startswith(classifier):
            return rest
        return self.keymap.backward(name)
