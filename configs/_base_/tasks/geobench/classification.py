# What the classification sets of GEO-Bench v1.0 share: images in their own size, normalised by the statistics
# of the set, no augmentation, and the last checkpoint is tested, as published with MP-MAE. A set adds its
# folder, its bands and its classes (they are compared with those that the set itself states).
_base_ = [
    '../../models/linear_cls.py',
    '../../schedules/geobench_adamw_coslr_100e.py',
    '../../default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    data_preprocessor=dict(type='mmrsfm.MultiBandDataPreprocessor'),
    head=dict(
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.2),
        topk=(1,),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)
pipeline = [dict(type='mmrsfm.LoadGeoBench'), dict(type='mmrsfm.PackInputs')]
# partition='0.01x_train' and others: a part of the training set.
_dataset = dict(type='mmrsfm.GeoBench', partition='default', pipeline=pipeline)
_test = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(split='train', **_dataset),
)
val_dataloader = dict(dataset=dict(split='valid', test_mode=True, **_dataset), **_test)
test_dataloader = dict(dataset=dict(split='test', test_mode=True, **_dataset), **_test)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10, max_keep_ckpts=1))
# For tools/analysis_tools/geobench.py: the number that the benchmark reports, and the batch of few-shot
# partitions, which is not accumulated.
metric = 'accuracy/top1'
few_shot_batch_size = 32
