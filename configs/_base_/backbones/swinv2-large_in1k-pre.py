# SwinV2-L from ImageNet-22k (192 pixels, windows of 12) and ImageNet-1k (256 pixels, windows of 16); see
# the base model. The position networks of the four stages were trained with windows of 12, 12, 12, 6.
_base_ = './swinv2-base_in1k-pre.py'

backbone = dict(
    arch='large',
    init_cfg=dict(
        checkpoint='checkpoints/swinv2-large-w16_in21k-pre_3rdparty_in1k-256px_20220803-c40cbed7.pth'
    ),
)
channels = [192, 384, 768, 1536]
