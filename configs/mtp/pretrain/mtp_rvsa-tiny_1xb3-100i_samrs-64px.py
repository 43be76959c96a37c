# For a CPU: a hundred steps of a small ViT + RVSA on whatever data of SAMRS's form there is. The same path
# as the large ones.
_base_ = [
    '../../_base_/models/mtp.py',
    '../../_base_/datasets/samrs_224px.py',
    '../../_base_/schedules/mtp_pretrain_adamw_coslr_80k.py',
    '../../_base_/backbones/rvsa-tiny_scratch.py',
]
default_scope = 'mmdet'

image_size = 64
width = 64
_region = dict(
    neck=dict(in_channels=_base_.channels, out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=256),
    ),
    train_cfg=dict(
        # Where an image is narrower than an anchor, none would be left.
        rpn=dict(allowed_border=-1),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=100)),
)
_masks = dict(
    mask_roi_extractor=dict(out_channels=width),
    mask_head=dict(in_channels=width, conv_out_channels=width, num_convs=2),
)
model = dict(
    backbone=dict(_base_.backbone, img_size=image_size),
    data_preprocessor=dict(size=image_size),
    decoders=dict(
        semantic=dict(decode_head=dict(in_channels=_base_.channels, channels=width)),
        instance=dict(_region, roi_head=dict(_region['roi_head'], **_masks)),
        rotated=_region,
    ),
    datasets=_base_.label_sets,
)
train_pipeline = [
    _base_.load_image,
    _base_.load_labels,
    _base_.flip,
    dict(
        type='mmrsfm.MultiTaskRandomResize',
        scale=(image_size, image_size),
        ratio_range=(0.5, 2.0),
    ),
    dict(type='mmrsfm.MultiTaskRandomCrop', size=image_size),
    _base_.drop_empty,
    dict(type='mmrsfm.PhotometricDistortion'),
    _base_.pack,
]
val_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.MultiTaskResize', scale=(image_size, image_size)),
    _base_.load_labels,
    _base_.pack,
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    constructor='mmrsfm.RVSALayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=100, by_epoch=False, begin=0, end=100)]
train_cfg = dict(max_iters=100, val_interval=50)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=50, save_best='multi_task/mean', rule='greater'),
)
