# Registration: the radar image of a pair to the optical one.
_base_ = [
    '../../_base_/tasks/matcher_8xb4-10e_guso-512px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(
    backbone=dict(
        rgb=dict(init_cfg=_base_.rgb, **_base_.backbone.backbone),
        sar=dict(init_cfg=_base_.sar, **_base_.backbone.backbone),
    ),
    neck=dict(in_channels=_base_.channels),
)
