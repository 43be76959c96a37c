# The published schedule of MP-MAE: AdamW, 1.5e-4 for every 256 images of a batch, 40 epochs of linear
# warm-up, half a cosine to 0 over 200 epochs, all for each iteration; full precision, gradients are not
# clipped.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    # No decay for biases and one-dimensional parameters. As published, the mask token and both
    # parameters of GRN do decay.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'.grn.': dict(decay_mult=1.0)},
    ),
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
        T_max=160,
        eta_min=0.0,
        by_epoch=True,
        begin=40,
        end=200,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=200)

# Another batch size scales the learning rate with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=4096)
