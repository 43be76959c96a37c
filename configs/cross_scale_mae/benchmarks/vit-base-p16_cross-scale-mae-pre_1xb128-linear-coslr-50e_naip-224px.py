_base_ = [
    '../../_base_/datasets/naip_tiles_224px.py',
    '../../_base_/models/cross_scale_vit-base-p16_linear.py',
    '../../_base_/schedules/linear_probe_lars_coslr_50e.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

# The constants are those of the tiles, not of the pretraining imagery.
model = dict(
    backbone=dict(init_cfg=dict(adapt=dict(ignore=['sensor', 'mean', 'std']))),
    # How many land cover codes occur in the labels: a property of your copy.
    head=dict(num_classes=66),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.1 * 128 / 256))
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(checkpoint=dict(interval=10))
