# The same out of packed files, which data_converters/pack_tiles.py makes of the folders:
#   for part in train val test; do
#     python data_converters/pack_tiles.py CONFIG data/bigearthnet_v2/s1_$part.tiles --loader ${part}_dataloader
#   done
_base_ = './mixmim-base_sarw-pre_8xb128-coslr-50e_bigearthnetv2-s1-128px.py'

_dataset = dict(type='mmrsfm.PackedTileDataset', data_root='data/bigearthnet_v2')
train_dataloader = dict(
    dataset=dict(
        _delete_=True, ann_file='s1_train.tiles', pipeline=_base_.train_pipeline, **_dataset
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file='s1_val.tiles',
        pipeline=_base_.test_pipeline,
        test_mode=True,
        **_dataset,
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file='s1_test.tiles',
        pipeline=_base_.test_pipeline,
        test_mode=True,
        **_dataset,
    )
)
