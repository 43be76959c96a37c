# Linear probing as published with Cross-Scale MAE (that of MAE, for 50 epochs): LARS without weight
# decay, 0.1 for every 256 images of a batch of 1024, 10 epochs of warm-up, half a cosine to 0.
# mmpretrain's LARS keeps the learning rate in the momentum, MAE's does not: the same but for the
# slope of the schedule. Mixed precision: --amp.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='LARS', lr=0.1 * 1024 / 256, momentum=0.9, weight_decay=0.0, eta=0.001),
    # One-dimensional parameters are not rescaled.
    paramwise_cfg=dict(custom_keys={'bias': dict(lars_exclude=True)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=40,
        eta_min=0.0,
        begin=10,
        end=50,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=50, val_interval=5)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
auto_scale_lr = dict(base_batch_size=1024)
