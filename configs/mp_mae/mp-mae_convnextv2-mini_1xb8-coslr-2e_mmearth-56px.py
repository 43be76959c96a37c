# For a CPU: two epochs of whatever tiles in MMEarth's format are there. The same path as Atto.
_base_ = [
    '../_base_/models/mp_mae_convnextv2-mini.py',
    '../_base_/modalities/mmearth_all.py',
    '../_base_/datasets/mmearth_56px.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(head=dict(targets=_base_.targets))
train_pipeline = [_base_.load_modalities, *_base_.train_pipeline[1:]]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root='data/mmearth/mine', pipeline=train_pipeline),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=2, begin=0, end=2, convert_to_iter_based=True)
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
