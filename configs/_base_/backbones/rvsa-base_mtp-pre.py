# From the encoder that MTP pretrained on SAMRS, images of 224x224 pixels.
_base_ = './rvsa-base_mae-pre.py'

backbone = dict(
    init_cfg=dict(checkpoint='checkpoints/last_vit_b_rvsa_ss_is_rd_pretrn_model_encoder.pth')
)
