# MaRS on one real pair of SpaceNet 6, on two cores in two minutes: two stages of SwinV2, tokens of 8
# pixels (36 m). Run by `bash tools/quickstart.sh --task mars`.
_base_ = [
    '../_base_/models/mars_swinv2-base.py',
    '../_base_/datasets/spacenet6_demo_32px.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    modalities=dict(rgb=3, sar=4),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=48, depths=[2, 2], num_heads=[3, 6]),
        img_size=32,
        window_size=4,
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(num_heads=4, block='pre_norm'),
    # A random teacher has nothing to teach.
    teacher=None,
    mask_unit=8,
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=20),
    dict(type='CosineAnnealingLR', T_max=280, by_epoch=False, begin=20, end=300),
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=300)
test_cfg = dict(type='mmrsfm.TestLoop')
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=300, by_epoch=False, max_keep_ckpts=1)
)
