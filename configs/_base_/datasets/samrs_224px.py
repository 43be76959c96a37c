# SAMRS for MTP: SOTA, SIOR and FAST, each with classes of pixels, instances and rotated boxes; images of
# 224x224. docs/datasets.md says how it comes below data/samrs.
#
# Another data set is another entry of both lists, and of label_sets; one that is left out of them takes
# no part:
#   model = dict(datasets=[*_base_.label_sets, dict(name='mine', classes=('house', 'tree'))])
#   train_dataloader = dict(dataset=dict(datasets=[*_base_.train_sets, dict(type=..., ...)]))
# (With four, a batch is a multiple of four, or sampler=dict(composition='drawn').)
image_size = 224
data_root = 'data/samrs'
label_sets = [dict(name='sota'), dict(name='sior'), dict(name='fast')]
train_sets = [
    dict(
        type='mmrsfm.SAMRSDataset',
        name=name,
        data_root=f'data/samrs/{name}',
        ann_file=f'{name}_rbb_train_ins_segmentation.json',
    )
    for name in ('sota', 'sior', 'fast')
]
val_sets = [
    dict(
        type='mmrsfm.SAMRSDataset',
        name=name,
        data_root=f'data/samrs/{name}',
        ann_file=f'{name}_rbb_valid_ins_segmentation.json',
        test_mode=True,
    )
    for name in ('sota', 'sior', 'fast')
]

load_image = dict(type='LoadImageFromFile')
load_labels = dict(type='mmrsfm.LoadMultiTaskAnnotations')
flip = dict(
    type='mmrsfm.MultiTaskRandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']
)
# As published: where none of the objects is left, another image is drawn.
drop_empty = dict(type='mmrsfm.MultiTaskFilter', min_side=1e-5, min_area=1, on_empty='reject')
pack = dict(type='mmrsfm.PackMultiTaskInputs')
# The published distortion is one for 8 bits, and gets floats: an image in five loses its colours.
published_load = dict(type='LoadImageFromFile', to_float32=True)
published_distortion = dict(type='mmseg.PhotoMetricDistortion')

_geometry = [
    load_labels,
    flip,
    dict(type='mmrsfm.MultiTaskRandomResize', scale=(224, 224), ratio_range=(0.5, 2.0)),
    dict(type='mmrsfm.MultiTaskRandomCrop', size=224),
    drop_empty,
]
train_pipeline = [load_image, *_geometry, dict(type='mmrsfm.PhotometricDistortion'), pack]
published_pipeline = [published_load, *_geometry, published_distortion, pack]
# Labels are loaded after the image is resized: they are compared at the size of the file.
val_pipeline = [
    load_image,
    dict(type='mmrsfm.MultiTaskResize', scale=(224, 224)),
    load_labels,
    pack,
]

train_dataloader = dict(
    batch_size=3,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    # One image of each, as published; no data set is cut short at the end of the smallest.
    sampler=dict(type='mmrsfm.MultiDatasetSampler', ratios='avg', shuffle=True),
    dataset=dict(type='mmrsfm.MultiDataset', datasets=train_sets, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmrsfm.MultiDataset', datasets=val_sets, pipeline=val_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmrsfm.MultiTaskMetric')
test_evaluator = val_evaluator
