# Translation: a radar image of an optical image.
_base_ = [
    '../../_base_/tasks/translator_8xb4-10e_guso-512px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(
    source='rgb',
    target='sar',
    backbone=dict(init_cfg=_base_.rgb, **_base_.backbone.backbone),
    neck=dict(in_channels=_base_.channels),
)
visualizer = dict(source='rgb', target='sar')
