# For CPUs, tests and demonstrations, on images of 128x128 pixels; from random weights. A random teacher
# has nothing to teach: none.
_base_ = './mars_swinv2-base.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, depths=[2, 2, 4, 2], num_heads=[2, 4, 8, 16]),
        img_size=128,
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    teacher=None,
)
