# The published pretraining of ViT-L + RVSA, with what is odd in it: README.md says what.
_base_ = [
    '../../_base_/models/mtp.py',
    '../../_base_/datasets/samrs_448px.py',
    '../../_base_/schedules/mtp_pretrain_adamw_coslr_80k.py',
    '../../_base_/backbones/rvsa-large_mae-pre.py',
]
default_scope = 'mmdet'

model = dict(
    backbone=dict(_base_.backbone, img_size=448, drop_path_rate=0.1, final_norm=True, with_cp=True),
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
# A rate of 1: the published constructor names a decay of 0.9, and finds no backbone to give it to.
optim_wrapper = dict(
    constructor='mmrsfm.RVSALayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
