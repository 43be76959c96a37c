# The published schedule of SAR-W-MixMAE: AdamW, 1.5e-4 for every 256 images of a batch, 40 epochs of
# linear warm-up, half a cosine to 0 over 1024 epochs, all for each iteration; mixed precision, gradients
# are not clipped.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1.5e-4 * 2048 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    # No decay for biases and one-dimensional parameters. As published, the mask token and the tables of
    # the position biases do decay.
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)

param_scheduler = [
    dict(
        type='LinearLR',
        # From 0, which MMEngine does not take.
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=40,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=984,
        eta_min=0.0,
        by_epoch=True,
        begin=40,
        end=1024,
        convert_to_iter_based=True,
    ),
]

# The released weights are of epoch 64 of this schedule, where the learning rate is still at 0.9985 of its
# peak: --cfg-options train_cfg.max_epochs=64
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=1024)

# Another batch size scales the learning rate with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=2048)
