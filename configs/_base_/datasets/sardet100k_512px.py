# SARDet-100K in images of up to 512x512 pixels, read as three equal bands; see mmrsfm.SARDet100KDataset
# for the layout.
_base_ = './xview_416px.py'

dataset_type = 'mmrsfm.SARDet100KDataset'
data_root = 'data/sardet-100k'
crop_size = (512, 512)
resize = dict(type='Resize', scale=crop_size, keep_ratio=True)
train_pipeline = [*_base_.train_pipeline[:2], resize, *_base_.train_pipeline[3:]]
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[2:]]
dataset = dict(type=dataset_type, data_root=data_root)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        **dataset,
        ann_file='Annotations/train.json',
        data_prefix=dict(img='JPEGImages/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='Annotations/val.json',
        data_prefix=dict(img='JPEGImages/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='Annotations/test.json',
        data_prefix=dict(img='JPEGImages/test'),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(ann_file=f'{data_root}/Annotations/val.json')
test_evaluator = dict(ann_file=f'{data_root}/Annotations/test.json')
