# SAR-W-MixMAE with MixMIM-B for two polarisations, VH and VV, of 128x128 pixels. The data preprocessor,
# with the polarisations and their statistics in dB, comes with the dataset. From random weights, as
# published.
model = dict(
    type='mmrsfm.SARWMixMAE',
    backbone=dict(type='mmrsfm.MixMIM', arch='base', img_size=128, in_channels=2),
    # Channels, stride and size are the backbone's.
    neck=dict(
        type='mmrsfm.MixMIMDecoder', decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=16
    ),
    loss=dict(
        type='mmrsfm.SARWeightedReconstructionLoss',
        # Or 'shared_avg', 'mean_of_weights', 'none'.
        weight_mode='per_channel',
        # Power from dB, as the paper says. The released weights were trained with 'normalized'.
        weight_domain='db',
        weight_scale=1.0,
        norm_pix=True,
    ),
    mask_ratio=0.5,
    # As published; 'pair': a mask for each pair of images instead of one for all of a GPU.
    mask_scope='batch',
)
