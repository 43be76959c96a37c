# The published pretraining: 8 x 512 images of 128x128 pixels, 400 epochs of fMoW-RGB.
_base_ = [
    '../_base_/models/cross_scale_mae_vit-base-p16.py',
    '../_base_/datasets/fmow_rgb_pretrain_128px.py',
    '../_base_/schedules/cross_scale_mae_adamw_coslr_400e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

default_hooks = dict(checkpoint=dict(interval=25))
