_base_ = './mars_swinv2-base.py'

model = dict(
    backbone=dict(
        arch='large',
        init_cfg=dict(
            checkpoint='checkpoints/swinv2-large-w16_in21k-pre_3rdparty_in1k-256px_20220803-c40cbed7.pth'
        ),
    )
)
