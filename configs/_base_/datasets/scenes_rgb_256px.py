# What the RGB scene benchmarks share; their files set the dataset and the number of classes. The
# constants are those of fMoW, on which the released weights were trained; the sensor is another one in
# each, so that none is stated (what is not stated is not compared with the checkpoint's contract).
_base_ = './fmow_rgb.py'

data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    **{**_base_.contract, 'sensor': None, 'licence': None},
)
size = 256
train_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.RandomResizedCrop', size=size, scale=(0.25, 1.0), interpolation='bicubic'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='vertical'),
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.Resize', size=(size, size), interpolation='bicubic'),
    dict(type='mmrsfm.PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='SingleLabelMetric', items=('precision', 'recall', 'f1-score')),
]
test_evaluator = val_evaluator
