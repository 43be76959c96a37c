# EarthMiss, crops of 512x512 pixels: trained on optical and SAR images, of which one is often taken away;
# validated and tested on SAR alone, on other cities. See mmrsfm.EarthMissDataset for the layout. Mean and
# standard deviation are those of its authors.
dataset_type = 'mmrsfm.EarthMissDataset'
data_root = 'data/earthmiss'
crop_size = (512, 512)
modalities = dict(rgb=3, sar=1)
data_preprocessor = dict(
    type='mmrsfm.MultiBandSegDataPreprocessor',
    mean=[111.9726, 118.4239, 115.0313, 63.3005],
    std=[72.9709, 72.9853, 81.9177, 68.2041],
    # The backbone sees from NaN what is missing.
    invalid='nan',
    size=crop_size,
)
load = dict(type='mmrsfm.LoadModalities', modalities=modalities)
train_pipeline = [
    load,
    dict(type='mmrsfm.LoadSegLabel'),
    dict(type='mmrsfm.RandomCrop', size=crop_size),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='mmrsfm.RandomRot90'),
    # The test has no optical image: half of the training has none either.
    dict(type='mmrsfm.DropModality', names=['rgb'], prob=0.5),
    dict(type='mmrsfm.PackSegInputs'),
]
test_pipeline = [load, dict(type='mmrsfm.LoadSegLabel'), dict(type='mmrsfm.PackSegInputs')]
sar_alone = dict(sar='images/SAR', seg_map_path='masks')
train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='val',
        data_prefix=sar_alone,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        data_prefix=sar_alone,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore'])
test_evaluator = val_evaluator
