# Both encoders that MaRS pretrained, base, their maps added as in the published fine-tunings. Images of
# any size; img_size is that of the pretraining. Another fusion, other names of the modalities and what
# is particular to a task come from the config that inherits this.
rgb = dict(type='mmrsfm.Pretrained', checkpoint='checkpoints/mars_base_rgb_encoder_only.pth')
sar = dict(type='mmrsfm.Pretrained', checkpoint='checkpoints/mars_base_sar_encoder_only.pth')
backbone = dict(
    type='mmrsfm.DualModalityBackbone',
    backbone=dict(type='mmrsfm.SwinV2', arch='base', img_size=512),
    modalities=dict(
        rgb=dict(channels=3, backbone=dict(init_cfg=rgb)),
        sar=dict(channels=1, backbone=dict(init_cfg=sar)),
    ),
    fusion='add',
)
channels = [128, 256, 512, 1024]
