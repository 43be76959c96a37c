_base_ = './mtp_adamw_coslr_100e.py'

param_scheduler = [
    _base_.warm_up,
    dict(type='CosineAnnealingLR', T_max=195, by_epoch=True, begin=5, end=200),
]
train_cfg = dict(max_epochs=200, val_interval=40)
