# For CPUs and tests.
_base_ = './vit-base-p16_cross-scale-mae-pre_8xb128-linear-coslr-50e_eurosat-rgb-64px.py'

checkpoint = 'checkpoints/cross_scale_mae_tiny_pretrain.pth'
model = dict(
    backbone=dict(arch='tiny', frozen_stages=4, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(input_features=128),
    head=dict(in_channels=128),
)
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)
test_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)
