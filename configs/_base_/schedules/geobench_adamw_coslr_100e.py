# GEO-Bench classification as published with MP-MAE, fine-tuning and linear probing alike: AdamW, 2e-4 for
# every 256 images of a batch of 1024 (64 times 16), no warm-up, half a cosine to 1e-6. The layer decay of
# 0.9 comes with the backbone.
_lr = 2e-4 * 1024 / 256
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=_lr, betas=(0.9, 0.999), weight_decay=0.3),
    accumulative_counts=16,
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=100,
        eta_min_ratio=1e-6 / _lr,
        begin=0,
        end=100,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=100, val_interval=10)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
auto_scale_lr = dict(base_batch_size=1024)
