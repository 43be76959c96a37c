# MP-MAE with ConvNeXtV2-Atto for 12 bands of Sentinel-2, from random weights, as published. What it
# predicts (head.targets) comes with the config; the data preprocessor with the dataset.
model = dict(
    type='mmrsfm.MPMAE',
    backbone=dict(
        type='mmrsfm.ConvNeXtV2',
        arch='atto',
        in_channels=12,
        # 8 with crops of 56 pixels, 16 with 112: 7 x 7 patches.
        patch_size=8,
        out_indices=(3,),
        # As published: statistics of GRN over the visible positions of all images of a GPU.
        # 'sample': of each image, as in the paper of ConvNeXtV2.
        grn_statistics='batch',
        weight_init='published_masked',
    ),
    neck=dict(type='mmrsfm.MPMAEDecoder', embed_dims=512, depth=1, conv_std=1.0),
    head=dict(
        type='mmrsfm.MultiPretextHead',
        # Or 'unweighted'.
        weighting='uncertainty',
        # What is missing is left out; 'as_published': missing pixels are regressed to 0.
        missing='ignored',
        map_std=1.0,
    ),
    mask_ratio=0.6,
)
