# Trees of a forest that the pretraining has not seen, by the UPerHead of that pretraining:
# tools/model_converters/mtp_decoder.py brings its decoder, else it begins anew.
_base_ = [
    '../../_base_/models/upernet.py',
    '../../_base_/backbones/rvsa-tiny_mtp-demo-pre.py',
    '../../_base_/datasets/yellowstone_demo_seg_192px.py',
    '../../_base_/schedules/demo_adamw_poly_40i.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmseg'

norm_cfg = dict(_delete_=True, type='GN', num_groups=8)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(img_size=192, **_base_.backbone),
    # Trees are a fifth of the area: without weights the first answer is that there are none.
    decode_head=dict(
        in_channels=_base_.channels,
        channels=64,
        num_classes=2,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=[1.0, 3.0]),
    ),
    test_cfg=dict(mode='whole'),
)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=40, by_epoch=False, max_keep_ckpts=1)
)
