# Change detection: one backbone for both dates, their coarsest maps behind each other, MaRS' decoder of
# deconvolutions with one output. Channels of the backbone (twice, for two dates) come from the config that
# inherits this.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='SiamEncoderDecoder',
    neck=dict(type='FeatureFusionNeck', policy='concat', out_indices=(0,)),
    decode_head=dict(
        type='mmrsfm.DeconvHead',
        fuse_channels=256,
        block_channels=(128, 64, 32, 32, 32),
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        norm_cfg=norm_cfg,
        align_corners=False,
        ignore_index=255,
        loss_decode=[
            dict(
                type='mmseg.CrossEntropyLoss',
                use_sigmoid=True,
                loss_weight=0.5,
                avg_non_ignore=True,
                loss_name='loss_bce',
            ),
            dict(type='mmrsfm.DiceLoss', loss_weight=0.5),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
