# Damage assessment, pseudo-siamese: an encoder for the optical image before, another for the SAR image
# after, and their maps behind each other.
_base_ = [
    '../../_base_/tasks/upernet_4xb4-15k_dfc25-512px.py',
    '../../_base_/backbones/dual-swinv2-base_mars-pre.py',
]
model = dict(
    backbone=dict(
        type=_base_.backbone.type,
        backbone=_base_.backbone.backbone,
        modalities=dict(pre=_base_.backbone.modalities.rgb, post=_base_.backbone.modalities.sar),
        fusion='concat',
    ),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
)
