_base_ = [
    '../../_base_/tasks/8xb8-coslr-200e_resisc45-224px.py',
    '../../_base_/backbones/rvsa-large_mae-pre.py',
]
model = dict(
    backbone=dict(img_size=224, with_fpn=False, **_base_.backbone),
    head=dict(in_channels=_base_.channels[-1]),
)
optim_wrapper = _base_.layer_decay
