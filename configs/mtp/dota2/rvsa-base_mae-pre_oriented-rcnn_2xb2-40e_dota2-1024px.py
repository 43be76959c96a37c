_base_ = [
    '../../_base_/tasks/oriented-rcnn_2xb2-40e_dota2-1024px.py',
    '../../_base_/backbones/rvsa-base_mae-pre.py',
]
model = dict(
    backbone=dict(img_size=1024, full_rel_pos=False, **_base_.backbone),
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
