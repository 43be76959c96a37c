# The same with several classes a scene.
_base_ = [
    '../../_base_/tasks/8xb8-coslr-100e_scene-multilabels-256px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(backbone=_base_.backbone, head=dict(in_channels=_base_.channels[-1]))
