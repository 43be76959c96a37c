_base_ = './mtp_adamw_coslr_100e.py'

param_scheduler = [
    _base_.warm_up,
    dict(type='CosineAnnealingLR', T_max=145, by_epoch=True, begin=5, end=150),
]
train_cfg = dict(max_epochs=150, val_interval=30)
