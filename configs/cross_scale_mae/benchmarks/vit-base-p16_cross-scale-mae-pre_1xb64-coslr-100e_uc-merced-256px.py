_base_ = [
    '../../_base_/datasets/uc_merced_256px.py',
    '../../_base_/models/cross_scale_vit-base-p16_finetune.py',
    '../../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

# A smaller batch than for the larger data sets: there are 1260 images to train on.
model = dict(head=dict(num_classes=_base_.data_preprocessor.num_classes))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=1e-3 * 64 / 256))
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(checkpoint=dict(interval=10))
