# For a CPU: a small model from random weights, one process; --cfg-options train_cfg.max_epochs=2
_base_ = [
    '../../_base_/tasks/8xb128-coslr-50e_bigearthnetv2-s1-128px.py',
    '../../_base_/backbones/mixmim-tiny_scratch.py',
]
model = dict(backbone=_base_.backbone, head=dict(in_channels=_base_.channels[-1]))
_few = dict(num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader = dict(batch_size=8, **_few)
val_dataloader = dict(batch_size=8, **_few)
test_dataloader = dict(batch_size=8, **_few)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
