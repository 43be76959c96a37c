# The published schedule of MaRS: AdamW, 1e-4 for every 256 pairs of a batch, one epoch of linear
# warm-up, half a cosine to 0, all for each iteration; mixed precision, gradients are not clipped.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-4 * 128 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    # No decay for biases and one-dimensional parameters. As published, all else does decay: mask
    # tokens, logit_scale and the networks of the position biases too. SwinV2 usually spares these:
    # custom_keys=dict(mask_token=dict(decay_mult=0.0), logit_scale=dict(decay_mult=0.0),
    #                  cpb_mlp=dict(decay_mult=0.0)).
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)

param_scheduler = [
    dict(
        type='LinearLR',
        # From 0, which MMEngine does not take.
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=11,
        eta_min=0.0,
        by_epoch=True,
        begin=1,
        end=12,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=12)

# Another batch size scales the learning rate with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=128)
