# The published pretraining of InternImage-XL, with what is odd in it: README.md says what.
_base_ = [
    '../../_base_/models/mtp.py',
    '../../_base_/datasets/samrs_448px.py',
    '../../_base_/schedules/mtp_pretrain_adamw_coslr_80k.py',
    '../../_base_/backbones/internimage-xl_in22k-pre.py',
]
default_scope = 'mmdet'

model = dict(
    backbone=dict(_base_.backbone, with_cp=True),
    data_preprocessor=dict(size=448, pad_seg='as_published'),
    decoders=dict(
        semantic=dict(decode_head=dict(in_channels=_base_.channels)),
        instance=dict(neck=dict(in_channels=_base_.channels)),
        rotated=dict(neck=dict(in_channels=_base_.channels)),
    ),
    datasets=_base_.label_sets,
    # init_weights is never called there.
    decoder_init='as_published',
)
train_dataloader = dict(dataset=dict(pipeline=_base_.published_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    constructor='mmrsfm.InternImageLayerDecayOptimWrapperConstructor',
    # Here the published constructor does find its backbone.
    paramwise_cfg=dict(layer_decay_rate=0.94, num_layers=39, depths=[5, 5, 24, 5]),
)
