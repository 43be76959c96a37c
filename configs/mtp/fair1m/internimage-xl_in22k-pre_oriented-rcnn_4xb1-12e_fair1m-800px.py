_base_ = [
    '../../_base_/tasks/oriented-rcnn_4xb1-12e_fair1m-800px.py',
    '../../_base_/backbones/internimage-xl_in22k-pre.py',
]
model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
