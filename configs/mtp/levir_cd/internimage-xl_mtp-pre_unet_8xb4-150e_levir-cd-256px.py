_base_ = [
    '../../_base_/tasks/unet_8xb4-150e_levir-cd-256px.py',
    '../../_base_/backbones/internimage-xl_mtp-pre.py',
]
model = dict(
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels, encoder_channels=_base_.channels),
)
optim_wrapper = dict(optimizer=dict(lr=2e-5), **_base_.layer_decay)
