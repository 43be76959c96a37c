# The optical encoder that MaRS pretrained, large; see the base model. The uploaded files of the large
# encoders (634,126,336 and 639,631,360 bytes) are shorter than their weights (780.8 MB): a load says so.
_base_ = './swinv2-base_mars-rgb-pre.py'

backbone = dict(
    arch='large', init_cfg=dict(checkpoint='checkpoints/mars_large_rgb_encoder_only.pth')
)
channels = [192, 384, 768, 1536]
