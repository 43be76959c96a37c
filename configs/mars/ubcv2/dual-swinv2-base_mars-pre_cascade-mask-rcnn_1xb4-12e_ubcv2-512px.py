# Buildings as boxes and masks, from optical and SAR images: the published run.
_base_ = [
    '../../_base_/tasks/cascade-mask-rcnn_1xb4-12e_ubcv2-512px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))
