# Height of every pixel, of the coarsest map: MaRS' decoder of deconvolutions (four blocks, one more
# doubling). Channels of the backbone come from the config that inherits this.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='mmrsfm.HeightEstimator',
    decode_head=dict(
        type='mmrsfm.HeightHead',
        # Of DFC23, as published: the network learns h / 183.17412.
        height_scale=183.17412,
        norm_cfg=norm_cfg,
        loss_decode=dict(type='mmrsfm.RegressionLoss', kind='l1'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
