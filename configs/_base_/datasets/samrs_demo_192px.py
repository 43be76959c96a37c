# Two small data sets in the form of SAMRS, each with classes of pixels, instances and rotated boxes: the
# buildings of a panchromatic scene of 0.5 m (SpaceNet, Atlanta), and trees in airborne RGB images of 0.1 m
# (NEON), tiles of 192x192 pixels: made by `bash tools/quickstart.sh --task mtp` (tools/demo/data_mtp.py).
# They are not augmented: a few hundred steps from random weights learn these objects, or none. For your
# own data, put mmrsfm.MultiTaskRandomFlip and the other steps of samrs_224px.py after the labels.
_base_ = './samrs_224px.py'

image_size = 192
data_root = 'data/mtp_demo'
label_sets = [dict(name='atlanta', classes=('building',)), dict(name='neon', classes=('tree',))]
train_sets = [
    dict(
        type='mmrsfm.SAMRSDataset',
        name=one['name'],
        metainfo=dict(classes=one['classes']),
        data_root=f'data/mtp_demo/{one["name"]}',
        ann_file=f'{one["name"]}_rbb_train_ins_segmentation.json',
    )
    for one in label_sets
]
test_sets = [
    dict(
        type='mmrsfm.SAMRSDataset',
        name=one['name'],
        metainfo=dict(classes=one['classes']),
        data_root=f'data/mtp_demo/{one["name"]}',
        ann_file=f'{one["name"]}_rbb_test_ins_segmentation.json',
        test_mode=True,
    )
    for one in label_sets
]
train_pipeline = [
    {{_base_.load_image}},
    {{_base_.load_labels}},
    {{_base_.pack}},
]
test_pipeline = [
    {{_base_.load_image}},
    # As they are; the metrics ask for a scale.
    dict(type='mmrsfm.MultiTaskResize', scale=(192, 192)),
    {{_base_.load_labels}},
    {{_base_.pack}},
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(datasets=train_sets, pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(datasets=test_sets, pipeline=test_pipeline),
)
val_dataloader = None
val_evaluator = None
