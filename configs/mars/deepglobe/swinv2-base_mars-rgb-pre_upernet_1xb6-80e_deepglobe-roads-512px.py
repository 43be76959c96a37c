# Roads with UPerNet.
_base_ = [
    '../../_base_/tasks/upernet_1xb6-80e_deepglobe-roads-512px.py',
    '../../_base_/backbones/swinv2-base_mars-rgb-pre.py',
]
model = dict(backbone=_base_.backbone, decode_head=dict(in_channels=_base_.channels))
