# Fine-tuning as published: mean of the patch tokens, LayerNorm, one linear layer; mixup 0.8 or cutmix
# 1.0 on every batch, label smoothing 0.1, stochastic depth 0.1.
_base_ = './cross_scale_vit-base-p16.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        out_type='avg_featmap',
        drop_path_rate=0.1,
        # The released file (md5 0c33995da85c112d9602f89d5b186bbc), or a checkpoint of ours.
        init_cfg=dict(
            type='mmrsfm.Pretrained',
            checkpoint='checkpoints/cross_scale_mae_base_pretrain.pth',
            # The LayerNorm after the mean is new.
            allow_missing=['ln2.*'],
        ),
    ),
    head=dict(
        type='LinearClsHead',
        in_channels=768,
        num_classes=62,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
