# Tiles of a Sentinel-2 scene, all 13 bands, four classes: made as MTP's EuroSAT models are, with a
# small ViT + RVSA from random weights.
_base_ = [
    '../../_base_/models/linear_cls.py',
    '../../_base_/datasets/sentinel2_demo_cls_32px.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    backbone=dict(
        type='mmrsfm.RVSAViT',
        arch='tiny',
        img_size=32,
        patch_size=4,
        in_channels=13,
        with_fpn=False,
    ),
    head=dict(in_channels=96, num_classes=4, topk=(1,)),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=7, begin=1, end=8, convert_to_iter_based=True),
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=8, val_interval=4)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4, max_keep_ckpts=1))
