# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Small data sets in the true form on the disk of the benchmarks, drawn when a test needs them.

``make_<dataset>(root, *, seed, count, size)`` writes what the configs read, below ``root``, and
returns it; ``make_<dataset>_source`` writes what is downloaded, before our converters. They are
written from the published descriptions of the sets and from real files, and import nothing of
mmrsfm, so that a wrong format does not pass because writer and reader share a mistake.
"""

from .bigearthnet import make_bigearthnet_v1, make_bigearthnet_v1_zarr, make_bigearthnet_v2
from .change_detection import (
    make_cdd,
    make_cdd_source,
    make_levir_cd,
    make_levir_cd_source,
    make_oscd,
    make_oscd_source,
    make_whu_cd,
    make_whu_cd_source,
)
from .classification import (
    make_eurosat,
    make_eurosat_source,
    make_resisc45,
    make_resisc45_source,
)
from .dior import make_dior, make_dior_r, make_dior_source
from .dota import make_dota1, make_dota2, make_dota_source
from .fair1m import make_fair1m, make_fair1m_source
from .geobench import make_geobench
from .mars import (
    make_guso,
    make_mars_16m,
    make_scene_labels,
    make_scene_multilabels,
    make_scene_pairs,
    make_spacenet6,
    make_vhr_rgb,
)
from .mmearth import make_mmearth_sets
from .multimodal import make_bright, make_deepglobe, make_dfc23, make_dfc25, make_earthmiss
from .samrs import make_samrs_fast, make_samrs_sior, make_samrs_sota, make_samrs_source
from .sar_detection import make_sardet, make_ubcv2
from .segmentation import (
    make_loveda,
    make_loveda_source,
    make_spacenet_v1,
    make_spacenet_v1_source,
)
from .sen12_flood import make_flood_masks, make_sen12_flood, make_sen12_flood_source
from .xview import make_xview, make_xview_source

MAKERS = {
    'eurosat': make_eurosat,
    'resisc45': make_resisc45,
    'xview': make_xview,
    'dior': make_dior,
    'dior_r': make_dior_r,
    'fair1m': make_fair1m,
    'dota1': make_dota1,
    'dota2': make_dota2,
    'spacenet_v1': make_spacenet_v1,
    'loveda': make_loveda,
    'oscd': make_oscd,
    'whu_cd': make_whu_cd,
    'levir_cd': make_levir_cd,
    'cdd': make_cdd,
    'mars_16m': make_mars_16m,
    'vhr_rgb': make_vhr_rgb,
    'spacenet6': make_spacenet6,
    'guso': make_guso,
    'mmearth': make_mmearth_sets,
    'geobench': make_geobench,
    'scene_labels': make_scene_labels,
    'scene_multilabels': make_scene_multilabels,
    'earthmiss': make_earthmiss,
    'bright': make_bright,
    'dfc25': make_dfc25,
    'dfc23': make_dfc23,
    'deepglobe': make_deepglobe,
    'sardet': make_sardet,
    'ubcv2': make_ubcv2,
    'bigearthnet_v2': make_bigearthnet_v2,
    'bigearthnet_v1': make_bigearthnet_v1,
    'bigearthnet_v1_zarr': make_bigearthnet_v1_zarr,
    'sen12_flood': make_sen12_flood,
    'flood_masks': make_flood_masks,
    'samrs_sota': make_samrs_sota,
    'samrs_sior': make_samrs_sior,
    'samrs_fast': make_samrs_fast,
}

SOURCES = {
    'eurosat': make_eurosat_source,
    'resisc45': make_resisc45_source,
    'xview': make_xview_source,
    'dior': make_dior_source,
    'fair1m': make_fair1m_source,
    'dota': make_dota_source,
    'spacenet_v1': make_spacenet_v1_source,
    'loveda': make_loveda_source,
    'oscd': make_oscd_source,
    'whu_cd': make_whu_cd_source,
    'levir_cd': make_levir_cd_source,
    'cdd': make_cdd_source,
    'samrs': make_samrs_source,
    'scene_pairs': make_scene_pairs,
    'sen12_flood': make_sen12_flood_source,
}

__all__ = [
    'MAKERS',
    'SOURCES',
    *(maker.__name__ for maker in MAKERS.values()),
    *(maker.__name__ for maker in SOURCES.values()),
]
