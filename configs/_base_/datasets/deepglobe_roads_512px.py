# DeepGlobe roads: crops of 512x512 pixels, tested on whole images in windows; see
# mmrsfm.DeepGlobeRoadDataset for the layout and for the split: lists of your own go into ann_file.
dataset_type = 'mmrsfm.DeepGlobeRoadDataset'
data_root = 'data/deepglobe-roads'
crop_size = (512, 512)
data_preprocessor = dict(
    type='mmrsfm.MultiBandSegDataPreprocessor',
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    size=crop_size,
)
load = [
    dict(type='mmrsfm.LoadMultiBandImage', to_float32=False),
    # Grey RGB, near 0 and 255: the publisher says to cut at 128.
    dict(type='mmrsfm.LoadSegLabel', band=1, threshold=128),
]
train_pipeline = [
    *load,
    dict(type='mmrsfm.RandomCrop', size=crop_size),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.PackSegInputs'),
]
test_pipeline = [*load, dict(type='mmrsfm.PackSegInputs')]
dataset = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img_path='train', seg_map_path='train'),
)
train_dataloader = dict(
    batch_size=6,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(**dataset, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, split='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
# The published number is the IoU of the roads.
val_evaluator = dict(type='mmrsfm.CDMetric', changed_class='road', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
