_base_ = './fmow_rgb.py'

data_preprocessor = dict(type='mmrsfm.MultiBandDataPreprocessor', num_classes=62, **_base_.contract)

train_pipeline = [_base_.load_image, *_base_.augment, dict(type='mmrsfm.PackInputs')]
test_pipeline = [
    _base_.load_image,
    # 128 / 0.875
    dict(type='mmrsfm.Resize', size=146, interpolation='bicubic', antialias=True),
    dict(type='mmrsfm.CenterCrop', size=128),
    dict(type='mmrsfm.PackInputs'),
]
train_dataloader = dict(
    batch_size=512,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmrsfm.FMoWRGB',
        data_root=_base_.data_root,
        ann_file='train.csv',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=512,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmrsfm.FMoWRGB',
        data_root=_base_.data_root,
        ann_file='val.csv',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='SingleLabelMetric', items=('precision', 'recall', 'f1-score')),
]
test_evaluator = val_evaluator
