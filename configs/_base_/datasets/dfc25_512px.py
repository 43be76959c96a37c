# DFC25 track 2 (BRIGHT), crops of 512x512 pixels: an optical image before and a SAR image after a
# disaster. See mmrsfm.DFC25Dataset for the layout. The contest keeps the labels of its own validation and
# test: the authors' hold-out list is what is evaluated here. Mean and standard deviation are those of
# the pretraining (rgb, Umbra).
dataset_type = 'mmrsfm.DFC25Dataset'
data_root = 'data/dfc25'
crop_size = (512, 512)
data_preprocessor = dict(
    type='mmrsfm.MultiBandSegDataPreprocessor',
    mean=[87.01, 91.52, 83.51, 36.42],
    std=[62.66, 54.58, 53.11, 33.89],
    invalid='nan',
    size=crop_size,
)
load = dict(type='mmrsfm.LoadModalities', modalities=dict(pre=3, post=1))
train_pipeline = [
    load,
    dict(type='mmrsfm.LoadSegLabel'),
    dict(type='mmrsfm.RandomCrop', size=crop_size),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.PackSegInputs'),
]
test_pipeline = [load, dict(type='mmrsfm.LoadSegLabel'), dict(type='mmrsfm.PackSegInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='train_setlevel.txt',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='holdout_setlevel.txt',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore'])
test_evaluator = val_evaluator
