# MTP's fine-tuning by epochs (classification, change detection): AdamW, 5 epochs of warm-up for each
# iteration, half a cosine to 0 in steps of an epoch. No gradient clipping, no mixed precision (--amp).
optim_wrapper = dict(
    type='OptimWrapper',
    # Of RVSA; InternImage takes 2e-5.
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.05),
)
warm_up = dict(
    type='LinearLR', start_factor=1e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True
)
param_scheduler = [
    warm_up,
    dict(type='CosineAnnealingLR', T_max=95, by_epoch=True, begin=5, end=100),
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=100, val_interval=20)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
