# Two epochs on a CPU, from random weights: to see that everything works.
_base_ = [
    '../../_base_/tasks/upernet_2xb8-50e_flood-masks-512px.py',
    '../../_base_/backbones/mixmim-tiny_scratch.py',
]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels, channels=32, norm_cfg=norm_cfg),
)
param_scheduler = None
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2)
auto_scale_lr = dict(base_batch_size=4)
