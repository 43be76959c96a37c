# The published pretraining of MTP: AdamW, half a cosine to 0 over 80,000 iterations of 96 images (32 GPUs
# x 3), no warm-up, full precision; validated once, at the end. With the runtime, whose hooks it changes.
_base_ = '../default_runtime.py'

optim_wrapper = dict(
    type='OptimWrapper',
    # Of RVSA; InternImage takes 2e-5.
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5, norm_type=2),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=80000, eta_min=0.0, by_epoch=False, begin=0, end=80000)
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=80000, val_interval=80000)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')

default_hooks = dict(checkpoint=dict(interval=5000))
# The encoder of each checkpoint by itself, for fine-tuning: without decoders and optimizer.
custom_hooks = [dict(type='mmrsfm.EncoderCheckpointHook')]
# Another batch size scales the learning rate with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=96)
