_base_ = [
    '../../_base_/datasets/fmow_rgb_128px.py',
    '../../_base_/models/cross_scale_vit-base-p16_finetune.py',
    '../../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

# Published at 64 pixels with patches of 8, to which the released weights (128, 16) do not fit.
model = dict(head=dict(num_classes=_base_.data_preprocessor.num_classes))
train_dataloader = dict(batch_size=64)
default_hooks = dict(checkpoint=dict(interval=10))
