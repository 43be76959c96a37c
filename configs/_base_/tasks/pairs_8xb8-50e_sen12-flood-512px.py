# Before and after, flooded or not: tiles of 128 pixels, the differences of their features. 64 pairs are
# 2,048 tiles. Published is the schedule, not the batch, of SEN12-FLOOD.
_base_ = [
    '../datasets/sen12_flood_512px.py',
    '../schedules/sar_w_mixmae_finetune_adamw_coslr_50e.py',
    '../default_runtime.py',
]
default_scope = 'mmpretrain'
model = dict(
    type='mmrsfm.PairClassifier',
    data_preprocessor=_base_.data_preprocessor,
    tile_size=128,
    tile_reduction='avg',
    head=dict(
        type='LinearClsHead',
        num_classes=2,
        topk=(1,),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4 * 64 / 256))
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=5, save_best='accuracy/top1', rule='greater'),
    visualization=dict(type='mmrsfm.VisualizationHook'),
)
visualizer = dict(type='UniversalVisualizer')
