# Sentinel-1 of BigEarthNet v2, training and validation split, as the published pretraining read it: dB of
# 120 x 120 pixels, enlarged to 128. Statistics as published.
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=['VH', 'VV'],
    sensor='Sentinel-1',
    scale=1.0,
    gsd=10.0,
    licence='CDLA-Permissive-1.0 (imagery: BigEarthNet)',
    mean=[-19.1966, -12.5144],
    std=[5.4501, 5.0019],
)
# The published loader ends the run at NaN; here such pixels are left out of the loss.
load_image = dict(type='mmrsfm.LoadMultiBandImage')
train_pipeline = [
    load_image,
    dict(type='mmrsfm.Resize', size=(128, 128), interpolation='bilinear'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='vertical'),
    # 4 x 4 cells, half of which are exchanged.
    dict(type='mmrsfm.DrawMaskNoise', patch_size=32, num_views=1),
    dict(type='mmrsfm.PackInputs'),
]
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmrsfm.BigEarthNetV2',
        data_root='data/bigearthnet_v2',
        ann_file='metadata.parquet',
        split=['train', 'val'],
        pipeline=train_pipeline,
    ),
)
