# For a CPU: two epochs of whatever small MaRS-16M is there. The same path as the base model.
_base_ = [
    '../_base_/models/mars_swinv2-tiny.py',
    '../_base_/datasets/mars16m_512px.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

train_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.RandomResizedCrop', size=128, scale=(0.05, 0.2), interpolation='bilinear'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.DrawMaskNoise', patch_size=32, num_views=1),
    dict(type='mmrsfm.PackInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(pipeline=train_pipeline),
)

# Full precision.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=2, begin=0, end=2, convert_to_iter_based=True)
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
