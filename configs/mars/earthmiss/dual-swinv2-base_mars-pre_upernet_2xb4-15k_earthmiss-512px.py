# Missing-modality mapping: trained on optical and SAR images, tested on SAR alone.
_base_ = [
    '../../_base_/tasks/upernet_2xb4-15k_earthmiss-512px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(backbone=_base_.backbone, decode_head=dict(in_channels=_base_.channels))
