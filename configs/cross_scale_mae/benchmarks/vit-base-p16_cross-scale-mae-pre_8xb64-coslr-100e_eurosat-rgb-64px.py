_base_ = [
    '../../_base_/datasets/eurosat_rgb_64px.py',
    '../../_base_/models/cross_scale_vit-base-p16_finetune.py',
    '../../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(head=dict(num_classes=_base_.data_preprocessor.num_classes))
train_dataloader = dict(batch_size=64)
default_hooks = dict(checkpoint=dict(interval=10))
