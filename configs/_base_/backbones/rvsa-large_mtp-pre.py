# From the encoder that MTP pretrained on SAMRS, images of 448x448 pixels.
_base_ = './rvsa-large_mae-pre.py'

backbone = dict(
    init_cfg=dict(checkpoint='checkpoints/last_vit_l_rvsa_ss_is_rd_pretrn_model_encoder.pth')
)
