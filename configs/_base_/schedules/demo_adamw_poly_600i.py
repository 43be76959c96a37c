# The demonstrations: 600 iterations, from random weights, a few minutes on two cores.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=20),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=20, end=600),
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=600)
test_cfg = dict(type='mmrsfm.TestLoop')
