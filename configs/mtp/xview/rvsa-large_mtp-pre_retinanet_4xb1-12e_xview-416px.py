_base_ = [
    '../../_base_/tasks/retinanet_4xb1-12e_xview-416px.py',
    '../../_base_/backbones/rvsa-large_mtp-pre.py',
]
model = dict(
    backbone=dict(img_size=416, full_rel_pos=False, **_base_.backbone),
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
find_unused_parameters = True  # RetinaNet leaves the map of stride 4
