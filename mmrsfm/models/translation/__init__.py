# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Translation of images from one modality to another."""

from mmrsfm.models.translation.modality_translator import ModalityTranslator
from mmrsfm.models.translation.pixel_shuffle_decoder import PixelShuffleDecoder

__all__ = ['ModalityTranslator', 'PixelShuffleDecoder']
