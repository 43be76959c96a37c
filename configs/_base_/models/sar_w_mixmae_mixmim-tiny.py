# For CPUs, tests and demonstrations.
_base_ = './sar_w_mixmae_mixmim-base.py'

model = dict(
    backbone=dict(arch='tiny'),
    neck=dict(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=4),
)
