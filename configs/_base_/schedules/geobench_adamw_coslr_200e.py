# GEO-Bench segmentation as published with MP-MAE: AdamW, 1e-2 for every 256 images of a batch of 32, no
# warm-up, half a cosine to 1e-6. The decoder alone is trained for 50 epochs, then the backbone, too, without
# layer decay and weight decay.
_lr = 1e-2 * 32 / 256
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=_lr, betas=(0.9, 0.999), weight_decay=0.3),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(backbone=dict(decay_mult=0.0))
    ),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=200,
        eta_min_ratio=1e-6 / _lr,
        begin=0,
        end=200,
        convert_to_iter_based=True,
    )
]
custom_hooks = [dict(type='mmrsfm.FreezeHook', module='backbone', epochs=50, eval_mode=False)]
# Several processes wait for no gradients of what is frozen.
find_unused_parameters = True
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=200, val_interval=10)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
auto_scale_lr = dict(base_batch_size=32)
