# Two epochs on a CPU, from random weights: to see that everything works.
_base_ = [
    '../../_base_/tasks/pairs_8xb8-50e_sen12-flood-512px.py',
    '../../_base_/backbones/mixmim-tiny_scratch.py',
]
model = dict(backbone=_base_.backbone, head=dict(in_channels=_base_.channels[-1]))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = None
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
test_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2)
auto_scale_lr = dict(base_batch_size=4)
