_base_ = [
    '../../_base_/datasets/eurosat_rgb_64px.py',
    '../../_base_/models/cross_scale_vit-base-p16_knn.py',
    '../../_base_/schedules/knn_scale_sweep.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

test_cfg = dict(bank_dataset={**_base_.train_dataloader.dataset, 'pipeline': _base_.test_pipeline})
# Nothing is trained.
train_dataloader = val_dataloader = val_evaluator = None
