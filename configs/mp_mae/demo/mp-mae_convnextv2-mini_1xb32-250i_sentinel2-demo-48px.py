# MP-MAE on one real Sentinel-2 scene, on two cores in two minutes: Sentinel-2, land cover and position
# are predicted. Run by `bash tools/quickstart.sh --task mpmae`.
_base_ = [
    '../../_base_/models/mp_mae_convnextv2-mini.py',
    '../../_base_/datasets/sentinel2_demo_mmearth_48px.py',
    '../../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

targets = dict(
    # Without norm_pix, which takes the brightness of a patch out of what is to be predicted: the probe's
    # classes are those of mean colours.
    sentinel2=dict(type='map', channels=12, source='inputs', picture=(3, 2, 1)),
    dynamic_world=dict(type='class_map', classes=9),
    lat=dict(type='vector', channels=2),
    lon=dict(type='vector', channels=2),
)
model = dict(head=dict(targets=targets))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=30),
    dict(type='CosineAnnealingLR', T_max=220, by_epoch=False, begin=30, end=250),
]
train_cfg = dict(type='mmrsfm.IterTrainLoop', max_iters=250)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=250, by_epoch=False, max_keep_ckpts=1)
)
