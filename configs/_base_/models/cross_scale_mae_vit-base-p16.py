# Cross-Scale MAE, the paper's model (MsLdCeCd), with a ViT-B encoder; images of 128x128 pixels.
# The data preprocessor, with the bands and their statistics, comes with the dataset.
model = dict(
    type='mmrsfm.CrossScaleMAE',
    terms='MsLdCeCd',
    mask_ratio=0.75,
    scale_range=(0.25, 0.75),
    # As published: one rectangle for a batch. 'sample' takes the one that each sample brings.
    crop_mode='batch',
    # As published: the encoder's last LayerNorm is not used, and stays untrained.
    use_encoder_norm=False,
    backbone=dict(
        type='mmrsfm.CrossScaleViT',
        arch='base',
        img_size=128,
        patch_size=16,
        in_channels=3,
        # The released base weights are pre-norm. Training through xFormers was 'post'.
        norm_style='pre',
        out_type='raw',
        pos_embed_trainable=False,
    ),
    neck=dict(
        type='mmrsfm.CrossScaleMAEDecoder',
        img_size=128,
        patch_size=16,
        in_chans=3,
        embed_dim=768,
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16,
        norm_style='pre',
    ),
    predictor=dict(hidden_channels=2048, norm='patch_bn'),
    recon_loss=dict(type='mmrsfm.MaskedReconstructionLoss', kind='mse', norm_pix=False),
    contrastive_loss=dict(type='mmrsfm.NTXentLoss', temperature=0.5, gather=False),
)
