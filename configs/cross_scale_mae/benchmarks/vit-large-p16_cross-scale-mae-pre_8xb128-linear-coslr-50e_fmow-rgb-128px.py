_base_ = './vit-base-p16_cross-scale-mae-pre_8xb128-linear-coslr-50e_fmow-rgb-128px.py'

# The released file: md5 e6e4f58c07bbbc4c4dd63fa26c644dd4.
checkpoint = 'checkpoints/cross_scale_mae_large_pretrain.pth'
model = dict(
    backbone=dict(arch='large', frozen_stages=24, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024),
)
