# Registration of optical and radar images: an encoder each, maps of stride 4, dense correlation, robust
# homography. No code of it is published; ours. Encoders and in_channels of the neck come from the config
# that inherits this.
model = dict(
    type='mmrsfm.RegistrationModel',
    modalities=dict(rgb=3, sar=1),
    # out_level=1: stride 8, a sixteenth of the pairs of cells.
    neck=dict(type='mmrsfm.TopDownNeck', channels=256, out_channels=128, activation=False),
    head=dict(
        type='mmrsfm.MatchingHead',
        temperature=0.05,
        window_radius=2,
        max_queries=2048,
        min_confidence=0.01,
    ),
    estimator=dict(type='mmrsfm.RobustTransform', model='homography', threshold=3.0),
)
