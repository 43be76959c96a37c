# DIOR with horizontal boxes, images of 800x800 pixels; see mmrsfm.DIORDataset for the layout.
_base_ = './xview_416px.py'

dataset_type = 'mmrsfm.DIORDataset'
data_root = 'data/dior'
crop_size = (800, 800)
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='Resize', scale=crop_size, keep_ratio=True),
    *_base_.train_pipeline[3:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=crop_size, keep_ratio=True),
    *_base_.test_pipeline[2:],
]
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='DIOR_trainval_coco.json',
        data_prefix=dict(img='JPEGImages-trainval'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='DIOR_test_coco.json',
        data_prefix=dict(img='JPEGImages-test'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/DIOR_test_coco.json')
test_evaluator = val_evaluator
