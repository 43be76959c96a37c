# The encoder of Cross-Scale MAE with its pretrained weights to be named by the task's config:
#   backbone=dict(init_cfg=dict(type='mmrsfm.Pretrained', checkpoint=...))
model = dict(
    backbone=dict(
        type='mmrsfm.CrossScaleViT',
        arch='base',
        img_size=128,
        patch_size=16,
        in_channels=3,
        norm_style='pre',
        # The mean of the patch tokens is what pretraining shapes (its contrastive term).
        out_type='avg_featmap',
    ),
)
