# FAIR1M-2.0 in patches of 800x800 pixels; see mmrsfm.FAIR1MDataset for the layout. There is no part to
# validate on; the test writes what the server takes.
_base_ = './dota1_1024px.py'

dataset_type = 'mmrsfm.FAIR1MDataset'
data_root = 'data/fair1m'
crop_size = (800, 800)
resize = dict(type='mmdet.Resize', scale=crop_size, keep_ratio=True)
train_pipeline = [
    *_base_.train_pipeline[:3],
    resize,
    _base_.train_pipeline[4],
    dict(type='RandomRotate', prob=0.5, angle_range=180),
    _base_.train_pipeline[6],
]
test_pipeline = [_base_.test_pipeline[0], resize, _base_.test_pipeline[2]]
train_dataloader = dict(
    batch_size=1,
    num_workers=8,
    dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = None
test_dataloader = dict(
    batch_size=1,
    dataset=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline),
)
val_evaluator = None
test_evaluator = dict(_delete_=True, type='mmrsfm.FAIR1MSubmission')
