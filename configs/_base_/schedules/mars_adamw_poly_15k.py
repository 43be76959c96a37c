# That of EarthMiss's authors: AdamW, a polynomial to 0. MaRS states none for maps.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'logit_scale': dict(decay_mult=0.0), 'cpb_mlp': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=15000),
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=15000, val_interval=1500)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
