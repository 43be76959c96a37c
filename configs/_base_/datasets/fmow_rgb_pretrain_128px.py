_base_ = './fmow_rgb.py'

data_preprocessor = dict(type='mmrsfm.MultiBandDataPreprocessor', **_base_.contract)

train_pipeline = [
    _base_.load_image,
    *_base_.augment,
    dict(type='mmrsfm.DrawMaskNoise', patch_size=16, num_views=2),
    dict(type='mmrsfm.DrawScaleCrop', scale=(0.25, 0.75)),
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
