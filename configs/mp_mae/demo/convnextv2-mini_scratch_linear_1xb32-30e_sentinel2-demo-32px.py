# A linear layer on what an encoder with random weights makes of tiles of a Sentinel-2 scene: what the
# pretrained one is compared with.
_base_ = [
    '../../_base_/models/linear_cls.py',
    '../../_base_/datasets/sentinel2_demo_probe_32px.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    backbone=dict(
        type='mmrsfm.ConvNeXtV2',
        arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 64, 128]),
        in_channels=12,
        patch_size=8,
        # Nothing of it is trained.
        frozen_stages=3,
    ),
    # The backbone returns one vector an image.
    neck=None,
    head=dict(in_channels=128, num_classes=4, topk=(1,)),
)

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.0))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=30, begin=0, end=30, convert_to_iter_based=True)
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=30, val_interval=30)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=30, max_keep_ckpts=1))
