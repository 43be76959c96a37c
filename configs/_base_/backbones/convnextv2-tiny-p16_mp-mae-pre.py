_base_ = './convnextv2-atto-p8_mp-mae-pre.py'

backbone = dict(
    arch='tiny',
    patch_size=16,
    init_cfg=dict(
        checkpoint='checkpoints/pt-all_mod_tiny_1M_128_uncertainty_112-16/checkpoint-199.pth'
    ),
)
channels = [96, 192, 384, 768]
unet_channels = [96, 96, 192, 384, 768]
