# Two classes of the coarsest map: MaRS' decoder of deconvolutions for roads. Channels of the backbone, and
# `block_channels` (C/2, C/4, C/8, C/8), come from the config that inherits this.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    decode_head=dict(
        type='mmrsfm.DeconvHead',
        last_channels=32,
        last_convs=1,
        num_classes=2,
        norm_cfg=norm_cfg,
        align_corners=False,
        ignore_index=255,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=0.5, avg_non_ignore=True),
            dict(type='mmrsfm.DiceLoss', loss_weight=0.5),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
