# Trees of a forest that the pretraining has not seen, by the Oriented R-CNN of that pretraining:
# tools/model_converters/mtp_decoder.py brings its decoder, else it begins anew.
_base_ = [
    '../../_base_/models/oriented_rcnn.py',
    '../../_base_/backbones/rvsa-tiny_mtp-demo-pre.py',
    '../../_base_/datasets/yellowstone_demo_obb_192px.py',
    '../../_base_/schedules/demo_adamw_poly_40i.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmrotate'

model = dict(
    backbone=dict(img_size=192, **_base_.backbone),
    neck=dict(
        in_channels=_base_.channels,
        out_channels=64,
        num_outs=4,
        norm_cfg=dict(type='GN', num_groups=8),
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[5], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=1),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=200), rcnn=dict(max_per_img=100)),
)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=40, by_epoch=False, max_keep_ckpts=1)
)
