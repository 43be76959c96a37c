_base_ = [
    '../../_base_/tasks/faster-rcnn_4xb1-12e_dior-800px.py',
    '../../_base_/backbones/rvsa-base_mtp-pre.py',
]
model = dict(
    backbone=dict(img_size=800, full_rel_pos=False, **_base_.backbone),
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
