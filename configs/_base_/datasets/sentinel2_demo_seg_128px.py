_base_ = './sentinel2_demo.py'

data_preprocessor = dict(type='mmrsfm.MultiBandSegDataPreprocessor', **_base_.contract)

# Derived from NDWI, NDVI and NDBI, not surveyed: data_converters/spectral_index_labels.py.
metainfo = dict(
    classes=('water', 'vegetation', 'bare_built', 'other'),
    palette=[[30, 90, 200], [40, 150, 60], [205, 165, 110], [150, 150, 150]],
)

train_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.LoadSegLabel'),
    dict(type='mmrsfm.RandomCrop', size=48),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.PackSegInputs'),
]
test_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.LoadSegLabel'),
    dict(type='mmrsfm.PackSegInputs'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(
        type='mmrsfm.GeoTIFFSegDataset',
        data_root='data/sentinel2_demo',
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=15,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrsfm.GeoTIFFSegDataset',
        data_root='data/sentinel2_demo',
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=15,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrsfm.GeoTIFFSegDataset',
        data_root='data/sentinel2_demo',
        data_prefix=dict(img_path='images/test', seg_map_path='labels/test'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore'])
test_evaluator = val_evaluator
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
