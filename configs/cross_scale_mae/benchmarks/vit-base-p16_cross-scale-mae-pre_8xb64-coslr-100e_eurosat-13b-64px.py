_base_ = [
    '../../_base_/datasets/eurosat_13b_64px.py',
    '../../_base_/models/cross_scale_vit-base-p16_finetune.py',
    '../../_base_/schedules/finetune_adamw_coslr_100e.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

# Weights of a pretraining on other imagery: every band starts from the mean of the RGB stem's columns,
# and sensor, units and resolution may differ. With weights that name their bands: bands='by_name'.
model = dict(
    backbone=dict(
        in_channels=13,
        init_cfg=dict(adapt=dict(bands='mean', ignore=['sensor', 'scale', 'offset', 'gsd'])),
    ),
    head=dict(num_classes=_base_.data_preprocessor.num_classes),
)
train_dataloader = dict(batch_size=64)
default_hooks = dict(checkpoint=dict(interval=10))
