# The SAR encoder that MaRS pretrained, base, one band. Images of any size; img_size is that of the
# pretraining. A config that inherits this and a task puts the parts in their places: model.backbone, and
# the in_channels of neck or head.
backbone = dict(
    type='mmrsfm.SwinV2',
    arch='base',
    img_size=512,
    in_channels=1,
    init_cfg=dict(
        type='mmrsfm.Pretrained', checkpoint='checkpoints/mars_base_sar_encoder_only.pth'
    ),
)
channels = [128, 256, 512, 1024]
