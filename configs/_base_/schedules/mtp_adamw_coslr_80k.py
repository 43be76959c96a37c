# MTP's fine-tuning by iterations (segmentation): AdamW, 1,500 iterations of warm-up, half a cosine to 0.
optim_wrapper = dict(
    type='OptimWrapper',
    # Of RVSA; InternImage takes 2e-5.
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='CosineAnnealingLR', T_max=78500, eta_min=0.0, by_epoch=False, begin=1500, end=80000),
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=80000, val_interval=20000)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
