# Scenes of ones own with several classes: data/scene_multilabels/{rgb,sar}/*.tif and a list for each part,
# train.json and val.json; mmrsfm.ScenePairDataset reads CSV files too.
_base_ = './scene_labels_256px.py'

dataset = dict(
    type='mmrsfm.ScenePairDataset',
    data_root='data/scene_multilabels',
    data_prefix=dict(rgb='rgb', sar='sar'),
    multi_label=True,
    on_missing='keep',
)
train_dataloader = dict(
    dataset=dict(_delete_=True, ann_file='train.json', pipeline=_base_.train_pipeline, **dataset)
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file='val.json',
        test_mode=True,
        pipeline=_base_.test_pipeline,
        **dataset,
    )
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='MultiLabelMetric'), dict(type='AveragePrecision')]
test_evaluator = val_evaluator
