# Roads with the decoder of the published run.
_base_ = [
    '../../_base_/tasks/deconv_1xb6-80e_deepglobe-roads-512px.py',
    '../../_base_/backbones/swinv2-base_mars-rgb-pre.py',
]
model = dict(
    backbone=dict(**_base_.backbone, out_indices=(3,)),
    decode_head=dict(
        in_channels=_base_.channels[-1],
        block_channels=[_base_.channels[-1] // part for part in (2, 4, 8, 8)],
    ),
)
