_base_ = [
    '../../_base_/tasks/8xb8-coslr-200e_resisc45-224px.py',
    '../../_base_/backbones/internimage-xl_mtp-pre.py',
]
model = dict(
    backbone=_base_.backbone,
    head=dict(in_channels=_base_.channels[-1]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-5), **_base_.layer_decay)
