# Targets in SAR images, one band through the SAR encoder.
_base_ = [
    '../../_base_/tasks/cascade-rcnn_4xb4-12e_sardet100k-1b-512px.py',
    '../../_base_/backbones/swinv2-base_mars-sar-pre.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
