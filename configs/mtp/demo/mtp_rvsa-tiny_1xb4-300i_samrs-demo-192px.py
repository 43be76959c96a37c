# Multi-task pretraining of a small ViT + RVSA on two real data sets, buildings and trees: UPerHead, Mask
# R-CNN and Oriented R-CNN, thin enough for two cores, from random weights. Two images of each data set a
# step, and no layer that needs more of them.
_base_ = [
    '../../_base_/models/mtp.py',
    '../../_base_/datasets/samrs_demo_192px.py',
    '../../_base_/schedules/mtp_pretrain_adamw_coslr_80k.py',
    '../../_base_/backbones/rvsa-tiny_scratch.py',
]
default_scope = 'mmdet'

image_size = 192
width = 64
norm_cfg = dict(type='GN', num_groups=8)
_region = dict(
    # From random weights, the maps of a FPN without normalisation grow out of bounds.
    neck=dict(in_channels=_base_.channels, out_channels=width, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # Buildings and trees are 10 to 100 pixels large.
        anchor_generator=dict(scales=[5], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, finest_scale=28),
        bbox_head=dict(in_channels=width, fc_out_channels=256),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=200), rcnn=dict(max_per_img=100)),
)
_masks = dict(
    bbox_roi_extractor=dict(out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=2)),
    mask_roi_extractor=dict(out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=2)),
    mask_head=dict(in_channels=width, conv_out_channels=width, num_convs=2),
)
model = dict(
    backbone=dict(_base_.backbone, img_size=image_size),
    data_preprocessor=dict(size=image_size),
    decoders=dict(
        semantic=dict(
            decode_head=dict(in_channels=_base_.channels, channels=width, norm_cfg=norm_cfg)
        ),
        instance=dict(_region, roi_head={**_region['roi_head'], **_masks}),
        rotated=_region,
    ),
    datasets=_base_.label_sets,
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=20),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=20, end=300),
]
train_cfg = dict(_delete_=True, type='mmrsfm.IterTrainLoop', max_iters=300)
val_cfg = None
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=100, by_epoch=False, max_keep_ckpts=1)
)
