# For CPUs, tests and demonstrations.
_base_ = './cross_scale_mae_vit-base-p16.py'

model = dict(
    backbone=dict(arch='tiny'),
    neck=dict(embed_dim=128, decoder_embed_dim=256, decoder_depth=4, decoder_num_heads=8),
    predictor=dict(hidden_channels=512),
)
