# Translation of radar to optical images: one encoder, a map of stride 4, pixel shuffles up to full size.
# No code of it is published; ours. The encoder and in_channels of the neck come from the config that
# inherits this, and so does the other direction.
model = dict(
    type='mmrsfm.ModalityTranslator',
    modalities=dict(rgb=3, sar=1),
    source='sar',
    target='rgb',
    neck=dict(type='mmrsfm.TopDownNeck', channels=256),
    decoder=dict(type='mmrsfm.PixelShuffleDecoder', in_channels=256, stride=4, channels=128),
    ssim_weight=0.1,
    value_range=(0.0, 255.0),
)
