# Any Sentinel-1 imagery in dB: GeoTIFFs of two bands, VH and VV in this order, of any size, below
# data/sentinel1_tiles. NaN, and what the files say is no data, is left out of the loss. The statistics
# are those of BigEarthNet v2 (tools/analysis_tools/band_statistics.py computes those of other imagery).
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=['VH', 'VV'],
    sensor='Sentinel-1',
    scale=1.0,
    gsd=10.0,
    mean=[-19.1966, -12.5144],
    std=[5.4501, 5.0019],
)
load_image = dict(type='mmrsfm.LoadMultiBandImage', bands=['VH', 'VV'])
train_pipeline = [
    load_image,
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='vertical'),
    # Images that are smaller than a tile.
    dict(type='mmrsfm.Resize', size=(128, 128), interpolation='bilinear'),
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
        type='mmrsfm.TileDataset',
        data_root='data/sentinel1_tiles',
        data_prefix=dict(img_path=''),
        band_names=['VH', 'VV'],
        tile_size=128,
        pipeline=train_pipeline,
    ),
)
