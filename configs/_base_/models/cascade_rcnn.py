# Cascade R-CNN on four maps of strides 4 to 32: three heads, each with its own thresholds. Number of
# classes and channels of the backbone come from the config that inherits this.
_base_ = './faster_rcnn.py'

bbox_head = dict(
    type='Shared2FCBBoxHead',
    in_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    bbox_coder=dict(
        type='DeltaXYWHBBoxCoder',
        target_means=[0.0, 0.0, 0.0, 0.0],
        target_stds=[0.1, 0.1, 0.2, 0.2],
    ),
    reg_class_agnostic=True,
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
)
narrower = dict(bbox_head['bbox_coder'], target_stds=[0.05, 0.05, 0.1, 0.1])
narrowest = dict(bbox_head['bbox_coder'], target_stds=[0.033, 0.033, 0.067, 0.067])
rcnn_train = dict(
    assigner=dict(
        type='MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.5,
        min_pos_iou=0.5,
        match_low_quality=False,
        ignore_iof_thr=-1,
    ),
    sampler=dict(
        type='RandomSampler',
        num=512,
        pos_fraction=0.25,
        neg_pos_ub=-1,
        add_gt_as_proposals=True,
    ),
    pos_weight=-1,
    debug=False,
)
at_60 = dict(pos_iou_thr=0.6, neg_iou_thr=0.6, min_pos_iou=0.6)
at_70 = dict(pos_iou_thr=0.7, neg_iou_thr=0.7, min_pos_iou=0.7)
model = dict(
    type='CascadeRCNN',
    rpn_head=dict(
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0)
    ),
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            bbox_head,
            dict(bbox_head, bbox_coder=narrower),
            dict(bbox_head, bbox_coder=narrowest),
        ],
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=2000, max_per_img=2000),
        rcnn=[
            rcnn_train,
            dict(rcnn_train, assigner=dict(rcnn_train['assigner'], **at_60)),
            dict(rcnn_train, assigner=dict(rcnn_train['assigner'], **at_70)),
        ],
    ),
)
