# SAR-W-MixMAE on one real scene, on two cores in minutes: two stages of MixMIM, so that cells are of 8
# pixels (36 m) and not of 32. Run by `bash tools/quickstart.sh --task sarw`.
_base_ = [
    '../_base_/models/sar_w_mixmae_mixmim-base.py',
    '../_base_/datasets/spacenet6_sar_demo_32px.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, depths=[1, 2], num_heads=[1, 2]), img_size=32
    ),
    neck=dict(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=4),
    # The picture shall show grey levels that the model found, not those of the truth.
    loss=dict(norm_pix=False),
    # More masks in each step than the one of the published code.
    mask_scope='pair',
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=2950, by_epoch=False, begin=50, end=3000),
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=3000)
test_cfg = dict(type='mmrsfm.TestLoop')
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=500, by_epoch=False, max_keep_ckpts=1)
)
