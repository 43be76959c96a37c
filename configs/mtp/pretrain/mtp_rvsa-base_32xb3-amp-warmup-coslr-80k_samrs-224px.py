# Recommended: ViT-B + RVSA with labels where they belong, warm-up, layer decay and mixed precision.
_base_ = [
    '../../_base_/models/mtp.py',
    '../../_base_/datasets/samrs_224px.py',
    '../../_base_/schedules/mtp_pretrain_amp_adamw_warmup_coslr_80k.py',
    '../../_base_/backbones/rvsa-base_mae-pre.py',
]
default_scope = 'mmdet'

model = dict(
    backbone=dict(_base_.backbone, img_size=224, drop_path_rate=0.1),
    data_preprocessor=dict(size=224),
    decoders=dict(
        semantic=dict(decode_head=dict(in_channels=_base_.channels)),
        instance=dict(neck=dict(in_channels=_base_.channels)),
        rotated=dict(
            neck=dict(in_channels=_base_.channels),
            # Anchors may cross the border, as those of the instances. As published (0) a narrow image
            # that is made small has none left, which ends the run.
            train_cfg=dict(rpn=dict(allowed_border=-1)),
        ),
    ),
    datasets=_base_.label_sets,
)
optim_wrapper = dict(
    constructor='mmrsfm.RVSALayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
