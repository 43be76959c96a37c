_base_ = [
    '../../_base_/tasks/8xb128-coslr-50e_bigearthnetv2-s1-128px.py',
    '../../_base_/backbones/mixmim-base_sarw-pre.py',
]
model = dict(backbone=_base_.backbone, head=dict(in_channels=_base_.channels[-1]))
optim_wrapper = _base_.layer_decay
