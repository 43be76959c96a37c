# The quickstart's segmentation model from random weights: what the pretrained one is compared with.
_base_ = ['../_base_/datasets/sentinel2_demo_seg_128px.py', '../_base_/default_runtime.py']
default_scope = 'mmseg'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='mmrsfm.CrossScaleViT',
        arch='tiny',
        img_size=48,
        patch_size=4,
        in_channels=13,
        out_type='pyramid',
        out_indices=(0, 1, 2, 3),
        pyramid_norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[128, 128, 128, 128],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        num_classes=4,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True),
    ),
    # In overlapping windows of the size that training sees.
    test_cfg=dict(mode='slide', crop_size=(48, 48), stride=(40, 40)),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=10),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=10, end=100),
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=100, val_interval=100)
default_hooks = dict(
    logger=dict(interval=5),
    checkpoint=dict(interval=100, by_epoch=False, max_keep_ckpts=1),
)
