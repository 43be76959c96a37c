# SIMULATED change of buildings: the siamese UNet of MTP, in the way of Open-CD, on a small ViT + RVSA
# from random weights.
_base_ = [
    '../../_base_/models/siamese_unet.py',
    '../../_base_/backbones/rvsa-tiny_scratch.py',
    '../../_base_/datasets/atlanta_demo_cd_160px.py',
    '../../_base_/schedules/demo_adamw_poly_600i.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'opencd'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    # No positions: it trains on crops, and tests on larger patches.
    backbone=dict(img_size=160, use_abs_pos_emb=False, full_rel_pos=False, **_base_.backbone),
    decode_head=dict(
        in_channels=_base_.channels,
        encoder_channels=_base_.channels,
        decoder_channels=[64, 48, 32, 16],
        channels=16,
        norm_cfg=norm_cfg,
    ),
)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=200, by_epoch=False, max_keep_ckpts=1)
)
