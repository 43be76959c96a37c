# MaRS-16M: pairs of RGB and SAR, Umbra (8 bits) and Capella (16 bits). The statistics are the published
# ones, of stored numbers; those of SAR are by sensor.
_rgb_mean = [87.01, 91.52, 83.51]
_rgb_std = [62.66, 54.58, 53.11]
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=['R', 'G', 'B', 'SAR'],
    scale=1.0,
    gsd=0.35,
    sensors=dict(
        umbra=dict(mean=[*_rgb_mean, 36.42], std=[*_rgb_std, 33.89]),
        capella=dict(mean=[*_rgb_mean, 2353.35], std=[*_rgb_std, 4327.07]),
    ),
)
load_image = dict(
    type='mmrsfm.LoadModalities',
    modalities=dict(
        rgb=dict(channels=3, names=['R', 'G', 'B']), sar=dict(channels=1, names=['SAR'])
    ),
)
# One rectangle and one flip for both, as published.
train_pipeline = [
    load_image,
    dict(
        type='mmrsfm.RandomResizedCrop',
        size=512,
        scale=(0.7, 1.0),
        ratio=(3 / 4, 4 / 3),
        interpolation='bilinear',
        antialias=True,
    ),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    # 16 x 16 units, of which the model hides 60 %.
    dict(type='mmrsfm.DrawMaskNoise', patch_size=32, num_views=1),
    dict(type='mmrsfm.PackInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmrsfm.MaRS16M',
        data_root='data/mars16m',
        # The published loader leaves images without a partner out and does not say so.
        on_missing='error',
        # Listing millions of files takes minutes: once.
        index_file='data/mars16m.index',
        pipeline=train_pipeline,
    ),
)
