# Change detection: one backbone for both dates, the absolute difference of their maps, a UNet decoder.
# Channels of the backbone come from the config that inherits this.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='SiamEncoderDecoder',
    neck=dict(type='FeatureFusionNeck', policy='abs_diff', out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        type='UNetHead',
        num_classes=2,
        in_index=[0, 1, 2, 3],
        decoder_channels=[512, 256, 128, 64],
        channels=64,
        n_blocks=4,
        use_batchnorm=True,
        center=False,
        attention_type=None,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        ignore_index=255,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
