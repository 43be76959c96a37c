# Unlabelled optical images of any source, of about 0.35 m, below data/vhr_rgb; larger ones are cut into
# tiles. The statistics are those of the optical half of MaRS-16M.
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=['R', 'G', 'B'],
    scale=1.0,
    mean=[87.01, 91.52, 83.51],
    std=[62.66, 54.58, 53.11],
)
load_image = dict(type='mmrsfm.LoadMultiBandImage', bands=['R', 'G', 'B'], to_float32=False)
train_pipeline = [
    load_image,
    # 8 bits all the way to the device.
    dict(
        type='mmrsfm.RandomResizedCrop',
        size=512,
        scale=(0.7, 1.0),
        interpolation='bilinear',
        keep_dtype=True,
    ),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
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
        type='mmrsfm.TileDataset',
        data_root='data/vhr_rgb',
        data_prefix=dict(img_path='images'),
        band_names=['R', 'G', 'B'],
        tile_size=512,
        pipeline=train_pipeline,
    ),
)
