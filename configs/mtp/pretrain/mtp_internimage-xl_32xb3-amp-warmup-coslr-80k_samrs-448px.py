# Recommended: InternImage-XL with labels where they belong, warm-up, mixed precision, and activations that
# are computed again in the backward pass.
_base_ = [
    '../../_base_/models/mtp.py',
    '../../_base_/datasets/samrs_448px.py',
    '../../_base_/schedules/mtp_pretrain_amp_adamw_warmup_coslr_80k.py',
    '../../_base_/backbones/internimage-xl_in22k-pre.py',
]
default_scope = 'mmdet'

model = dict(
    backbone=dict(_base_.backbone, with_cp=True),
    data_preprocessor=dict(size=448),
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
    optimizer=dict(lr=2e-5),
    constructor='mmrsfm.InternImageLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.94, num_layers=39, depths=[5, 5, 24, 5]),
)
