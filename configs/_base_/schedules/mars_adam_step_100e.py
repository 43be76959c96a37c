# MaRS' fine-tuning for change detection: Adam, half the rate every 25 of 100 epochs.
_base_ = './mars_adam_step_80e.py'

param_scheduler = [dict(type='StepLR', by_epoch=True, step_size=25, gamma=0.5)]
train_cfg = dict(max_epochs=100)
