# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The benchmarks of change detection: one dataset, under the names and suffixes of each.

Their layout is that of :class:`_BaseCDDataset`, by convention with the folders ``A``, ``B`` and
``label`` in ``train``, ``val`` and ``test``; their classes are ``unchanged`` and ``changed``. Names
and defaults are Open-CD's.
"""

from __future__ import annotations

from typing import Any

from mmrsfm.compat.opencd.datasets.base_cd_dataset import _BaseCDDataset
from mmrsfm.compat.opencd.registry import DATASETS

_BINARY = {'classes': ('unchanged', 'changed'), 'palette': [[0, 0, 0], [255, 255, 255]]}


class _BinaryPNG(_BaseCDDataset):
    """PNG images with PNG maps of 0 and 255."""

    METAINFO = _BINARY

    def __init__(
        self,
        img_suffix: str = '.png',
        seg_map_suffix: str = '.png',
        format_seg_map: str | None = 'to_binary',
        **kwargs: Any,
    ) -> None:
        super().__init__(
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            format_seg_map=format_seg_map,
            **kwargs,
        )


@DATASETS.register_module()
class LEVIR_CD_Dataset(_BinaryPNG):  # noqa: N801
    """LEVIR-CD (Chen & Shi, 2020): buildings at 0.5 m, patches of 256 x 256 pixels."""


@DATASETS.register_module()
class OSCD_RGB_CD_Dataset(_BinaryPNG):  # noqa: N801
    """OSCD (Daudt et al., 2018): natural colours of Sentinel-2, patches of 96 x 96 pixels."""


@DATASETS.register_module()
class CLCD_Dataset(_BinaryPNG):  # noqa: N801
    """CLCD (Liu et al., 2022): cropland, Gaofen-2."""


@DATASETS.register_module()
class S2Looking_Dataset(_BinaryPNG):  # noqa: N801
    """S2Looking (Shen et al., 2021): buildings seen from the side."""


@DATASETS.register_module()
class JL1_CD_Dataset(_BinaryPNG):  # noqa: N801
    """JL1-CD (2025): all kinds of change at sub-metre resolution, Jilin-1."""


@DATASETS.register_module()
class SVCD_Dataset(_BinaryPNG):  # noqa: N801
    """SVCD, also called CDD (Lebedev et al., 2018): seasons vary; its folder ``OUT`` is ``label``.

    The maps are JPEGs: values between 0 and 255 are artefacts of the compression.
    """

    def __init__(
        self, img_suffix: str = '.jpg', seg_map_suffix: str = '.jpg', **kwargs: Any
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class WHU_CD_Dataset(_BinaryPNG):  # noqa: N801
    """WHU-CD (Ji et al., 2019): aerial images of Christchurch, patches of 256 x 256 pixels.

    Any suffix: the file of the map has the full name of the image.
    """

    def __init__(self, img_suffix: str = '', seg_map_suffix: str = '', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class RSIPAC_CD_Dataset(_BinaryPNG):  # noqa: N801
    """RSIPAC (2022): TIFF images with PNG maps."""

    def __init__(
        self, img_suffix: str = '.tif', seg_map_suffix: str = '.png', **kwargs: Any
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class DSIFN_Dataset(_BaseCDDataset):  # noqa: N801
    """DSIFN-CD (Zhang et al., 2020): maps of class numbers, 0 and 1.

    With maps of 0 and 255 pass ``format_seg_map='to_binary'``; otherwise 255 means "not labelled".
    """

    METAINFO = _BINARY

    def __init__(
        self, img_suffix: str = '.jpg', seg_map_suffix: str = '.png', **kwargs: Any
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
