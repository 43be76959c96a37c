# DOTA-2.0 in single-scale patches of 1024x1024 pixels, without rotation.
_base_ = './dota1_1024px.py'

dataset_type = 'mmrsfm.DOTAv2Dataset'
data_root = 'data/split_ss_dotav2'
train_pipeline = [*_base_.train_pipeline[:5], _base_.train_pipeline[-1]]
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
