# Sentinel-1 of BigEarthNet v1, 19 classes (43: num_classes=43 of the datasets and of the head), official
# lists. The Zarr form of the published runs: data_prefix=dict(s1='benv1.zarr/sentinel1').
_base_ = './bigearthnetv2_s1_128px.py'

data_preprocessor = dict(mean=[-19.2309, -12.5951], std=[3.1672, 2.9644])
_dataset = dict(type='mmrsfm.BigEarthNetV1', data_root='data/bigearthnet_v1')
train_dataloader = dict(
    dataset=dict(_delete_=True, ann_file='train.csv', pipeline=_base_.train_pipeline, **_dataset)
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file='val.csv',
        pipeline=_base_.test_pipeline,
        test_mode=True,
        **_dataset,
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file='test.csv',
        pipeline=_base_.test_pipeline,
        test_mode=True,
        **_dataset,
    )
)
