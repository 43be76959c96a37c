# Changed buildings with UPerNet, in the way of MTP.
_base_ = [
    '../../_base_/tasks/upernet_8xb4-200e_whu-cd-256px.py',
    '../../_base_/backbones/swinv2-base_mars-rgb-pre.py',
]
model = dict(backbone=_base_.backbone, decode_head=dict(in_channels=_base_.channels))
