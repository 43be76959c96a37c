# Heights from optical and SAR images: the maps of both encoders added, as in the published run.
_base_ = [
    '../../_base_/tasks/deconv_1xb6-80e_dfc23-512px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(backbone=_base_.backbone, decode_head=dict(in_channels=_base_.channels[-1]))
