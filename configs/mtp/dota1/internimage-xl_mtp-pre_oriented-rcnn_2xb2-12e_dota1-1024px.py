_base_ = [
    '../../_base_/tasks/oriented-rcnn_2xb2-12e_dota1-1024px.py',
    '../../_base_/backbones/internimage-xl_mtp-pre.py',
]
model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
test_dataloader = dict(batch_size=48)
