# Translation: an optical image of a radar image.
_base_ = [
    '../../_base_/tasks/translator_8xb4-10e_guso-512px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(
    backbone=dict(init_cfg=_base_.sar, **_base_.backbone.backbone),
    neck=dict(in_channels=_base_.channels),
)
