# Targets in SAR images, as the published run has it: three equal bands through the optical encoder.
_base_ = [
    '../../_base_/tasks/cascade-rcnn_4xb4-12e_sardet100k-512px.py',
    '../../_base_/backbones/swinv2-base_mars-rgb-pre.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
