_base_ = [
    '../../_base_/tasks/upernet_2xb8-50e_flood-masks-512px.py',
    '../../_base_/backbones/mixmim-base_sarw-pre.py',
]
model = dict(backbone=_base_.backbone, decode_head=dict(in_channels=_base_.channels))
optim_wrapper = _base_.layer_decay
