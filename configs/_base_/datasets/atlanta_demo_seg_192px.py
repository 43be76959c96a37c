# Masks of buildings in a panchromatic scene of 0.5 m, patches of 192x192 pixels: made by
# `bash tools/quickstart.sh --task seg` (tools/demo/data_atlanta.py).
data_root = 'data/atlanta_demo/seg'
metainfo = dict(classes=('background', 'building'), palette=[[90, 90, 90], [255, 220, 0]])
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=32,
    test_cfg=dict(size_divisor=32),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(type='BaseSegDataset', data_root=data_root, img_suffix='.png', metainfo=metainfo)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path='train/images', seg_map_path='train/masks'),
        pipeline=train_pipeline,
        **dataset,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='test/images', seg_map_path='test/masks'),
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']),
    # One class against the rest, as scalars: here of the buildings.
    dict(type='mmrsfm.CDMetric', changed_class='building'),
]
