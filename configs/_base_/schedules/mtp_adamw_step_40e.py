_base_ = './mtp_adamw_step_12e.py'

param_scheduler = [
    _base_.warm_up,
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=40, milestones=[24, 32, 38], gamma=0.1),
]
train_cfg = dict(max_epochs=40, val_interval=8)
