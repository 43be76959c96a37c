# UBCv2, optical and SAR patches of 512x512 pixels with buildings as polygons; see mmrsfm.UBCv2Dataset for
# the layout. With the merged files of the published run: see there, and bands=... of the loader.
dataset_type = 'mmrsfm.UBCv2Dataset'
data_root = 'data/ubcv2'
crop_size = (512, 512)
modalities = dict(rgb=3, sar=1)
# As published. What is missing stays NaN on the way through mmdet's transforms and into the backbone.
data_preprocessor = dict(
    type='mmrsfm.MultiBandDetDataPreprocessor',
    mean=[123.675, 116.28, 103.53, 0.2634],
    std=[58.395, 57.12, 57.375, 0.5957],
    invalid='nan',
    pad_size_divisor=32,
    pad_mask=True,
)
load = dict(type='mmrsfm.LoadModalities', modalities=modalities, invalid='nan')
train_pipeline = [
    load,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=crop_size, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    load,
    dict(type='Resize', scale=crop_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
annotations = 'annotations/roof_fine_{}_single_category.json'
train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file=annotations.format('train'),
        data_prefix=dict(rgb='train/rgb', sar='train/sar'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file=annotations.format('val'),
        data_prefix=dict(rgb='val/rgb', sar='val/sar'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=f'{data_root}/{annotations.format("val")}', metric=['bbox', 'segm']
)
test_evaluator = val_evaluator
