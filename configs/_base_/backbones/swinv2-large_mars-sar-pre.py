# The SAR encoder that MaRS pretrained, large; see the base model, and the large optical encoder.
_base_ = './swinv2-base_mars-sar-pre.py'

backbone = dict(
    arch='large', init_cfg=dict(checkpoint='checkpoints/mars_large_sar_encoder_only.pth')
)
channels = [192, 384, 768, 1536]
