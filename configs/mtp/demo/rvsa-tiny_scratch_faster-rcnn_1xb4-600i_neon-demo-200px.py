# Trees in airborne imagery: Faster R-CNN, thin enough for two cores, on a small ViT + RVSA from random
# weights.
_base_ = [
    '../../_base_/models/faster_rcnn.py',
    '../../_base_/backbones/rvsa-tiny_scratch.py',
    '../../_base_/datasets/neon_demo_200px.py',
    '../../_base_/schedules/demo_adamw_poly_600i.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmdet'

model = dict(
    backbone=dict(img_size=200, **_base_.backbone),
    # From random weights, the maps of a FPN without normalisation grow out of bounds.
    neck=dict(
        in_channels=_base_.channels,
        out_channels=64,
        num_outs=4,
        norm_cfg=dict(type='GN', num_groups=8),
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # The trees are 10 to 100 pixels large.
        anchor_generator=dict(scales=[5], ratios=[0.7, 1.0, 1.4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=1),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=600, max_per_img=300),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=600, max_per_img=300), rcnn=dict(nms=dict(iou_threshold=0.4))),
)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=200, by_epoch=False, max_keep_ckpts=1)
)
