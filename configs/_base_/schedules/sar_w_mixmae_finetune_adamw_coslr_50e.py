# Fine-tuning as published with SAR-W-MixMAE: AdamW, 5e-4 for every 256 images of a batch of 1024, 5 epochs
# of linear warm-up, half a cosine over 50 epochs. The layer decay of 0.7 comes with the backbone
# (paramwise_cfg.faithful=True decays the head, too, as published).
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=45,
        # To 1e-6 of 2e-3, and to as small a part of the rate of each layer.
        eta_min_ratio=1e-6 / 2e-3,
        begin=5,
        end=50,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
auto_scale_lr = dict(base_batch_size=1024)
