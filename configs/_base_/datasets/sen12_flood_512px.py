# SEN12-FLOOD, pairs of 512x512 pixels, as data_converters/sen12_flood.py prepares it: data/sen12flood.
# Mean and standard deviation are those of BigEarthNet v1, as published: a checkpoint that was trained
# on version 2 wants its own ([-19.1966, -12.5144], [5.4501, 5.0019]).
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=['VH', 'VV'],
    sensor='Sentinel-1',
    scale=1.0,
    gsd=10.0,
    mean=[-19.2309, -12.5951],
    std=[3.1672, 2.9644],
)
load = [
    dict(type='mmrsfm.LoadImagePair', band_names=['VH', 'VV']),
    # Linear power to dB. Zeros, outside of the swath, become -60 dB, as published; with nodata=0 in the
    # loader they become the mean instead.
    dict(
        type='mmrsfm.ScaleSAR',
        method='db',
        quantity='power',
        channels=[0, 1, 2, 3],
        limits=None,
        percentiles=None,
        out_range=None,
    ),
]
train_pipeline = [
    *load,
    # Both images alike.
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='vertical'),
    dict(type='mmrsfm.PackImagePair'),
]
test_pipeline = [*load, dict(type='mmrsfm.PackImagePair')]
dataset = dict(type='mmrsfm.SEN12Flood', data_root='data/sen12flood')
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        ann_file='pairs_train.csv',
        split='train',
        val_fraction=0.1,
        pipeline=train_pipeline,
        **dataset,
    ),
)
# A tenth of the training sequences: the published model was selected on the test part.
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        ann_file='pairs_train.csv',
        split='val',
        val_fraction=0.1,
        test_mode=True,
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(ann_file='pairs_test.csv', test_mode=True, pipeline=test_pipeline, **dataset),
)
# Precision, recall and F1 of each class; the published ones are those of 'flood'.
val_evaluator = [
    dict(type='Accuracy', topk=(1,)),
    dict(type='SingleLabelMetric', average=None),
]
test_evaluator = val_evaluator
