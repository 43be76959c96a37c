# MaRS' fine-tuning of dense tasks: Adam, half the rate after every quarter of 80 epochs. (Published so for
# height; of the schedule for roads only Adam, 1e-4 and 80 epochs are known.) No warm-up, no clipping.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4))
param_scheduler = [dict(type='StepLR', by_epoch=True, step_size=20, gamma=0.5)]
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=80, val_interval=5)
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
