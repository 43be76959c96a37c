# Linear probing: BatchNorm without weights, then one linear layer, on the class token of a frozen
# encoder, as published. The mean of the patch tokens is what the contrastive term shapes; to probe it:
#   --cfg-options model.backbone.out_type=avg_featmap model.backbone.init_cfg.allow_missing="['ln2.*']"
_base_ = './cross_scale_vit-base-p16.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        out_type='cls_token',
        frozen_stages=12,
        # The released file (md5 0c33995da85c112d9602f89d5b186bbc), or a checkpoint of ours.
        init_cfg=dict(
            type='mmrsfm.Pretrained', checkpoint='checkpoints/cross_scale_mae_base_pretrain.pth'
        ),
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=768, affine=False, eps=1e-6),
    head=dict(
        type='LinearClsHead',
        in_channels=768,
        num_classes=62,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)
