# Both encoders that MaRS pretrained, large; see the base model, and swinv2-large_mars-rgb-pre.py.
_base_ = './dual-swinv2-base_mars-pre.py'

backbone = dict(
    backbone=dict(arch='large'),
    modalities=dict(
        rgb=dict(
            backbone=dict(init_cfg=dict(checkpoint='checkpoints/mars_large_rgb_encoder_only.pth'))
        ),
        sar=dict(
            backbone=dict(init_cfg=dict(checkpoint='checkpoints/mars_large_sar_encoder_only.pth'))
        ),
    ),
)
channels = [192, 384, 768, 1536]
