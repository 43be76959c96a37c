# Sentinel-1 of BigEarthNet v1: the official lists of training and validation. Statistics as published.
_base_ = './bigearthnetv2_s1_pretrain_128px.py'

data_preprocessor = dict(mean=[-19.2309, -12.5951], std=[3.1672, 2.9644])
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmrsfm.BigEarthNetV1',
        data_root='data/bigearthnet_v1',
        ann_file=['train.csv', 'val.csv'],
        pipeline=_base_.train_pipeline,
    )
)
