# What a decoder can learn in a few steps: 40 iterations; see demo_adamw_poly_600i.py.
_base_ = './demo_adamw_poly_600i.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=10),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=10, end=40),
]
train_cfg = dict(max_iters=40)
