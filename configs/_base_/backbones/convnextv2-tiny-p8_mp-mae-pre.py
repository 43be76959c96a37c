_base_ = './convnextv2-atto-p8_mp-mae-pre.py'

backbone = dict(
    arch='tiny',
    init_cfg=dict(
        checkpoint='checkpoints/pt-all_mod_tiny_1M_64_uncertainty_56-8/checkpoint-199.pth'
    ),
)
channels = [96, 192, 384, 768]
unet_channels = [96, 96, 192, 384, 768]
