# Fine-tuning as published with Cross-Scale MAE: AdamW with a layer decay of 0.75, 1e-3 for every 256
# images of a batch of 512, 5 epochs of warm-up, half a cosine to 1e-6. Mixed precision: --amp.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3 * 512 / 256, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-9, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=95,
        eta_min=1e-6,
        begin=5,
        end=100,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=100, val_interval=5)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
auto_scale_lr = dict(base_batch_size=512)
