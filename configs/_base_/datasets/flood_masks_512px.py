# Sentinel-1 images of floods with masks, of any source: data/flood_masks/{train,val,test}/{images,masks}
# with files of the same names. Images: VH and VV in dB, in this order (a pipeline with bands=['VH', 'VV']
# finds them by the names in the files); NaN, and what the file says is no data, is left out. Masks:
# 0 dry, 1 flooded, 255 unknown.
crop_size = (512, 512)
data_preprocessor = dict(
    type='mmrsfm.MultiBandSegDataPreprocessor',
    band_names=['VH', 'VV'],
    sensor='Sentinel-1',
    scale=1.0,
    gsd=10.0,
    mean=[-19.1966, -12.5144],
    std=[5.4501, 5.0019],
)
train_pipeline = [
    dict(type='mmrsfm.LoadMultiBandImage'),
    dict(type='mmrsfm.LoadSegLabel'),
    # Images that are smaller.
    dict(type='mmrsfm.Pad', size=crop_size),
    dict(type='mmrsfm.RandomCrop', size=crop_size),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.PackSegInputs'),
]
test_pipeline = [
    dict(type='mmrsfm.LoadMultiBandImage'),
    dict(type='mmrsfm.LoadSegLabel'),
    dict(type='mmrsfm.PackSegInputs'),
]
dataset = dict(
    type='mmrsfm.GeoTIFFSegDataset',
    data_root='data/flood_masks',
    band_names=['VH', 'VV'],
    metainfo=dict(classes=('dry', 'flooded'), palette=[[180, 170, 140], [30, 90, 200]]),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path='train/images', seg_map_path='train/masks'),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='val/images', seg_map_path='val/masks'),
        test_mode=True,
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='test/images', seg_map_path='test/masks'),
        test_mode=True,
        pipeline=test_pipeline,
        **dataset,
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore'])
test_evaluator = val_evaluator
