_base_ = [
    '../../_base_/datasets/whu_rs19_256px.py',
    '../../_base_/models/cross_scale_vit-base-p16_linear.py',
    '../../_base_/schedules/linear_probe_lars_coslr_50e.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

# A smaller batch than for the larger data sets: there are about 500 images to train on.
model = dict(head=dict(num_classes=_base_.data_preprocessor.num_classes))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.1 * 128 / 256))
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(checkpoint=dict(interval=10))
