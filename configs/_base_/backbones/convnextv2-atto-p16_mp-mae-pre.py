_base_ = './convnextv2-atto-p8_mp-mae-pre.py'

backbone = dict(
    patch_size=16,
    init_cfg=dict(
        checkpoint='checkpoints/pt-all_mod_atto_1M_128_uncertainty_112-16/checkpoint-199.pth'
    ),
)
