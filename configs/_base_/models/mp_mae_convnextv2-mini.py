# For CPUs, tests and demonstrations: a tenth of Atto's encoder, and a narrow decoder.
_base_ = './mp_mae_convnextv2-atto.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 2, 1], channels=[16, 32, 64, 128]),
        # So few images a step: their own statistics, and weights that begin small.
        grn_statistics='sample',
        weight_init='small',
    ),
    neck=dict(embed_dims=64, conv_std=0.02),
    head=dict(map_std=0.02),
)
