# Building masks in a panchromatic scene: UPerNet on a small ViT + RVSA from random weights.
_base_ = [
    '../../_base_/models/upernet.py',
    '../../_base_/backbones/rvsa-tiny_scratch.py',
    '../../_base_/datasets/atlanta_demo_seg_192px.py',
    '../../_base_/schedules/demo_adamw_poly_600i.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmseg'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(img_size=192, **_base_.backbone),
    # Buildings are 4 % of the area: without weights the first answer is that there are none.
    decode_head=dict(
        in_channels=_base_.channels,
        channels=64,
        num_classes=2,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=[1.0, 4.0]),
    ),
    test_cfg=dict(mode='whole'),
)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=200, by_epoch=False, max_keep_ckpts=1)
)
