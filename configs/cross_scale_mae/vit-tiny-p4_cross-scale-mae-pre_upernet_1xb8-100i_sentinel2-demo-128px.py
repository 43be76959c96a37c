_base_ = './vit-tiny-p4_scratch_upernet_1xb8-100i_sentinel2-demo-128px.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='mmrsfm.Pretrained',
            checkpoint='work_dirs/quickstart/pretrain/epoch_150.pth',
            # What pretraining does not have: the scales for dense prediction.
            allow_missing=['pyramid.*'],
        )
    )
)
