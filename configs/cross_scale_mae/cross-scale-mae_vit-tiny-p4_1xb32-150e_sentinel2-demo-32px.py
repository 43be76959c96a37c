# The quickstart's pretraining, on two cores in two minutes. Patches of 4 pixels (40 m): the classes of
# the demonstration have borders.
_base_ = [
    '../_base_/models/cross_scale_mae_vit-tiny-p16.py',
    '../_base_/datasets/sentinel2_demo_pretrain_32px.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    backbone=dict(img_size=32, patch_size=4, in_channels=13),
    neck=dict(img_size=32, patch_size=4, in_chans=13, decoder_embed_dim=128, decoder_depth=2),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, end=15, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=135, begin=15, end=150, convert_to_iter_based=True),
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=150)
default_hooks = dict(logger=dict(interval=3), checkpoint=dict(interval=50, max_keep_ckpts=1))
