# MaRS with SwinV2-B encoders for optical and SAR images of 512x512 pixels. The data preprocessor, with
# the bands and their statistics, comes with the dataset.
# As published, all three encoders start from ImageNet weights: here those that mmpretrain converted
# (its metafile says where they are). For one SAR band the three columns of the stem are added up.
backbone = dict(
    type='mmrsfm.SwinV2',
    arch='base',
    img_size=512,
    drop_path_rate=0.1,
    init_cfg=dict(
        type='mmrsfm.Pretrained',
        checkpoint='checkpoints/swinv2-base-w8_3rdparty_in1k-256px_20220803-8ff28f2b.pth',
        adapt='mean',
    ),
)
model = dict(
    type='mmrsfm.MaRS',
    modalities=dict(rgb=3, sar=1),
    backbone=backbone,
    # block='pre_norm' is the usual transformer block; checkpoints of the authors have the published one.
    neck=dict(
        type='mmrsfm.MetaModalityAttention', num_heads=8, depth=2, mlp_ratio=4.0, block='published'
    ),
    head=dict(type='mmrsfm.PixelShuffleHead'),
    # What differs from the encoder of the first modality: nothing, it is that one, frozen.
    teacher=dict(),
    contrast=dict(
        type='mmrsfm.CrossGranularityContrastiveLoss',
        weights=dict(patch=0.5, image=0.3, patch_image=0.2),
        temperatures=dict(patch=0.1, image=0.05, patch_image=0.07),
        # The published code: 'as_coded', True, False.
        patch_image_targets='per_image',
        drop_first_token=False,
        gather=True,
    ),
    mask_unit=32,
    mask_ratio=0.6,
    # The published code: 'reference_int', which hides nothing.
    mask_mode='simmim',
    teacher_axis='token',
)
