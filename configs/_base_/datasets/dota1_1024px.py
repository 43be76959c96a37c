# DOTA-1.0 in multi-scale patches of 1024x1024 pixels; see mmrsfm.DOTADataset for the layout. Training is
# on trainval, so that the mAP of the validation is one of images that were trained on; the test writes
# what the server takes.
dataset_type = 'mmrsfm.DOTADataset'
data_root = 'data/split_ms_dota'
crop_size = (1024, 1024)

load_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
pack_test = dict(
    type='mmdet.PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)
train_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    *load_boxes,
    dict(type='mmdet.Resize', scale=crop_size, keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    # With storage tanks (9) or roundabouts (11), which look the same when they are turned while their
    # boxes do not, by quarters of a turn only.
    dict(type='RandomRotate', prob=0.5, angle_range=180, rect_obj_labels=[9, 11]),
    dict(type='mmdet.PackDetInputs'),
]
val_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=crop_size, keep_ratio=True),
    *load_boxes,
    pack_test,
]
test_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=crop_size, keep_ratio=True),
    pack_test,
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    batch_sampler=None,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='trainval/annfiles/',
        data_prefix=dict(img_path='trainval/images/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='val/annfiles/',
        data_prefix=dict(img_path='val/images/'),
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='test/images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='DOTAMetric', metric='mAP')
test_evaluator = dict(type='mmrsfm.DOTASubmission')
