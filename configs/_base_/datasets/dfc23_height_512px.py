# DFC23, track 2: optical and radar patches of 512x512 pixels with heights above ground; see
# mmrsfm.DFC23HeightDataset for the layout, and for `split`, if only `train` has heights.
dataset_type = 'mmrsfm.DFC23HeightDataset'
data_root = 'data/dfc23'
crop_size = (512, 512)
modalities = dict(rgb=3, sar=1)
# As published for the optical and radar images of this contest. What is missing stays NaN: the backbone
# leaves it out.
data_preprocessor = dict(
    type='mmrsfm.MultiBandSegDataPreprocessor',
    mean=[123.675, 116.28, 103.53, 0.2634],
    std=[58.395, 57.12, 57.375, 0.5957],
    invalid='nan',
)
train_pipeline = [
    dict(type='mmrsfm.LoadModalities', modalities=modalities),
    dict(type='mmrsfm.LoadHeightMap'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.PackSegInputs'),
]
test_pipeline = [
    dict(type='mmrsfm.LoadModalities', modalities=modalities),
    dict(type='mmrsfm.LoadHeightMap'),
    dict(type='mmrsfm.PackSegInputs'),
]
train_dataloader = dict(
    batch_size=6,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(rgb='train/rgb', sar='train/sar', dsm='train/dsm'),
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
        data_prefix=dict(rgb='val/rgb', sar='val/sar', dsm='val/dsm'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmrsfm.HeightMetric')
test_evaluator = val_evaluator
