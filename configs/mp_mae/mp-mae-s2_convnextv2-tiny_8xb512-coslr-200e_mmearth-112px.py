_base_ = [
    '../_base_/models/mp_mae_convnextv2-tiny.py',
    '../_base_/modalities/mmearth_s2.py',
    '../_base_/datasets/mmearth_112px.py',
    '../_base_/schedules/mp_mae_adamw_coslr_200e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(backbone=dict(patch_size=16), head=dict(targets=_base_.targets))
train_pipeline = [_base_.load_modalities, *_base_.train_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

default_hooks = dict(checkpoint=dict(interval=10))
