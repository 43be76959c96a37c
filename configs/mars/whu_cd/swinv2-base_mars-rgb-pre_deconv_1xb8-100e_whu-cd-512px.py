# Changed buildings with the decoder of the published run.
_base_ = [
    '../../_base_/tasks/deconv_1xb8-100e_whu-cd-512px.py',
    '../../_base_/backbones/swinv2-base_mars-rgb-pre.py',
]
model = dict(
    backbone=dict(**_base_.backbone, out_indices=(3,)),
    decode_head=dict(in_channels=2 * _base_.channels[-1]),
)
