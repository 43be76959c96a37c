# Recommended for new pretrainings: the published schedule with warm-up, mixed precision, and a validation
# every 5,000 iterations that chooses the best checkpoint by the mean of all tasks and data sets.
_base_ = './mtp_pretrain_adamw_coslr_80k.py'

optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='CosineAnnealingLR', T_max=78500, eta_min=0.0, by_epoch=False, begin=1500, end=80000),
]
train_cfg = dict(val_interval=5000)
default_hooks = dict(
    checkpoint=dict(interval=5000, save_best='multi_task/mean', rule='greater'),
)
