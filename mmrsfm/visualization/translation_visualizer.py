# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of translations: what went in, what came out, and the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmrsfm.errors import ConfigError
from mmrsfm.registry import VISUALIZERS
from mmrsfm.visualization.modality_visualizer import ModalityVisualizer, beside
from mmrsfm.visualization.samples import draw_image


@VISUALIZERS.register_module()
class TranslationVisualizer(ModalityVisualizer):
    """The source, its translation and, where there is one, the true image, in the same stretch.

    Args:
        modalities: Number of channels of each, in their order.
        source: The modality that is translated.
        target: The modality that is made.
        name: See MMEngine's Visualizer.
        **kwargs: As of MMEngine's Visualizer.

    Raises:
        ConfigError: If ``source`` or ``target`` is no modality.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        source: str,
        target: str,
        name: str = 'visualizer',
        **kwargs: Any,
    ) -> None:
        super().__init__(modalities, name, **kwargs)
        if not {source, target} <= set(self.modalities):
            raise ConfigError(
                f'TranslationVisualizer: source={source!r} and target={target!r} are two of '
                f'{list(self.modalities)}'
            )
        self.source, self.target = source, target

    def draw(self, shown: dict[str, Any], sample: Any) -> np.ndarray:
        """See :meth:`ModalityVisualizer.draw`."""
        images = [sample.pred_image]
        if getattr(sample, 'gt_image', None) is not None:
            images.append(sample.gt_image)
        arrays = [image.detach().cpu().permute(1, 2, 0).numpy() for image in images]
        width = arrays[0].shape[1]
        # Stretched together: the same number, the same colour.
        valid = np.ones((len(arrays), *arrays[0].shape), bool)
        mask = getattr(sample, 'image_valid', None)
        if mask is not None and len(arrays) > 1:
            valid[1] &= mask.cpu().numpy()[..., None]
        both = draw_image(
            {'img': np.concatenate(arrays, 1), 'valid_mask': np.concatenate(valid, 1)}
        )
        panels = [
            (self.source, self.picture(shown, self.source)),
            (f'{self.target}, predicted', both[:, :width]),
        ]
        if len(arrays) > 1:
            panels.append((f'{self.target}, true', both[:, width:]))
        return beside(panels)
