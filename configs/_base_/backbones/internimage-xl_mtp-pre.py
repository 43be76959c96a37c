# From the encoder that MTP pretrained on SAMRS, images of 448x448 pixels.
_base_ = './internimage-xl_in22k-pre.py'

backbone = dict(
    init_cfg=dict(checkpoint='checkpoints/last_internimage_xl_ss_is_rd_pretrn_model_encoder.pth')
)
