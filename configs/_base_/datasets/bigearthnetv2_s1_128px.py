# Sentinel-1 of BigEarthNet v2, 19 classes, official splits: models are chosen on validation, never on
# test. The published runs enlarge dB of 120 x 120 pixels to 128, and flip.
# (countries=['Portugal'], seasons=['summer'], on_missing='skip': see mmrsfm.BigEarthNetV2.)
_base_ = './bigearthnetv2_s1_pretrain_128px.py'

_resize = dict(type='mmrsfm.Resize', size=(128, 128), interpolation='bilinear')
train_pipeline = [
    _base_.load_image,
    _resize,
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='vertical'),
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [_base_.load_image, _resize, dict(type='mmrsfm.PackInputs')]
_dataset = dict(
    type='mmrsfm.BigEarthNetV2',
    data_root='data/bigearthnet_v2',
    # Without pyarrow: the same table as metadata.csv.
    ann_file='metadata.parquet',
)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(_delete_=True, split='train', pipeline=train_pipeline, **_dataset),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='val', pipeline=test_pipeline, test_mode=True, **_dataset),
)
test_dataloader = dict(
    batch_size=128,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='test', pipeline=test_pipeline, test_mode=True, **_dataset),
)
# The published rules of selection are numbers of the metric; 'weighted' chose the released weights.
val_evaluator = dict(type='mmrsfm.MultiLabelAPMetric', selection_rules=['weighted', 'sum', 'wins'])
test_evaluator = dict(type='mmrsfm.MultiLabelAPMetric', per_class=True)
