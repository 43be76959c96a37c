_base_ = './vit-tiny-p8_scratch_upernet_1xb8-150i_sentinel2-demo-128px.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='mmrsfm.Pretrained',
            checkpoint='work_dirs/quickstart/pretrain/epoch_300.pth',
            # What pretraining does not have: the scales for dense prediction.
            allow_missing=['pyramid.*'],
        )
    )
)
