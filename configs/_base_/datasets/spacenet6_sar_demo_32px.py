# VH and VV of a real airborne X band scene in dB (SpaceNet 6, Rotterdam, 4.5 m), which stands in for
# Sentinel-1: no package of the registry holds two polarisations of that. Made by
# `bash tools/quickstart.sh --task sarw`. Training and test area lie in one scene, apart from each other;
# the statistics are those of the training area.
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=['VH', 'VV'],
    sensor='airborne X band SAR (SpaceNet 6)',
    scale=1.0,
    gsd=4.5,
    licence='CC BY-SA 4.0 (imagery: SpaceNet 6)',
    mean=[-13.75, -11.36],
    std=[3.16, 4.65],
)
load_image = [
    dict(type='mmrsfm.LoadMultiBandImage', bands=['VH', 'VV']),
    # The strongest reflectors, up to 24 dB, would set the scale of the weights: all others would weigh
    # 2.71 to 2.72. Clipped to 0 dB (4 % of VV, 0.5 % of VH), 90 % of VV weigh 1.2 to 2.7.
    dict(
        type='mmrsfm.ScaleSAR',
        method='linear',
        limits=(-30.0, 0.0),
        out_range=None,
        channels=[0, 1],
    ),
]
# 4 x 4 cells, half of which are exchanged, as published, but of 8 pixels.
draw_mask = dict(type='mmrsfm.DrawMaskNoise', patch_size=8, num_views=1)
train_pipeline = [
    *load_image,
    dict(type='mmrsfm.RandomCrop', size=32),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomRot90'),
    draw_mask,
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [*load_image, draw_mask, dict(type='mmrsfm.PackInputs')]
_dataset = dict(
    type='mmrsfm.TileDataset', data_root='data/spacenet6_demo/sar', band_names=['VH', 'VV']
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    # Windows that overlap; each step takes a part of them.
    dataset=dict(
        data_prefix=dict(img_path='train'),
        tile_size=48,
        stride=8,
        pipeline=train_pipeline,
        **_dataset,
    ),
)
test_dataloader = dict(
    batch_size=39,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_prefix=dict(img_path='test'),
        tile_size=32,
        stride=8,
        test_mode=True,
        pipeline=test_pipeline,
        **_dataset,
    ),
)
test_evaluator = dict(type='mmrsfm.ReconstructionMetric', patch_size=8)
