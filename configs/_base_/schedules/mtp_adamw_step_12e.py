# MTP's fine-tuning of detectors: AdamW, 500 iterations of warm-up, a tenth after 8 and 11 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
warm_up = dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=500)
param_scheduler = [
    warm_up,
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=12, val_interval=3)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
