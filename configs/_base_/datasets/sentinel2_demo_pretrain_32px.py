_base_ = './sentinel2_demo.py'

data_preprocessor = dict(type='mmrsfm.MultiBandDataPreprocessor', **_base_.contract)

train_pipeline = [
    _base_.load_image,
    # 32 pixels of the result are 26 to 51 of the scene: the native resolution, and around it.
    dict(type='mmrsfm.RandomResizedCrop', size=32, scale=(0.04, 0.16), interpolation='bilinear'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='mmrsfm.DrawMaskNoise', patch_size=4, num_views=2),
    dict(type='mmrsfm.DrawScaleCrop'),
    dict(type='mmrsfm.PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(
        type='mmrsfm.TileDataset',
        data_root='data/sentinel2_demo',
        data_prefix=dict(img_path='images/train'),
        pipeline=train_pipeline,
    ),
)
