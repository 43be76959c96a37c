# Oriented boxes of buildings in a panchromatic scene of 0.5 m, patches of 192x192 pixels in the layout of
# split DOTA: made by `bash tools/quickstart.sh --task obb` (tools/demo/data_atlanta.py). They are not
# augmented: a few hundred steps from random weights learn these buildings, or none. For your own data, put
# mmdet.RandomFlip and mmrotate's RandomRotate before PackDetInputs.
data_root = 'data/atlanta_demo/obb'
metainfo = dict(classes=('building',), palette=[(255, 220, 0)])
load_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
train_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    *load_boxes,
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    # As they are; mmdet asks for a scale.
    dict(type='mmdet.Resize', scale=(192, 192), keep_ratio=True),
    *load_boxes,
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    batch_sampler=None,
    dataset=dict(
        type='mmrsfm.DOTADataset',
        data_root=data_root,
        ann_file='train/labelTxt/',
        data_prefix=dict(img_path='train/images/'),
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=5,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrsfm.DOTADataset',
        data_root=data_root,
        ann_file='test/labelTxt/',
        data_prefix=dict(img_path='test/images/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='DOTAMetric', metric='mAP')
