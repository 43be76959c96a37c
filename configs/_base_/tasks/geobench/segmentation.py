# What the segmentation sets of GEO-Bench v1.0 share: images in their own size, normalised by the statistics
# of the set, no augmentation, and the last checkpoint is tested, as published with MP-MAE. A set adds its
# folder, its bands and its classes; the config its backbone and decode_head.
_base_ = ['../../schedules/geobench_adamw_coslr_200e.py', '../../default_runtime.py']
default_scope = 'mmseg'

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='mmrsfm.MultiBandSegDataPreprocessor'),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
pipeline = [dict(type='mmrsfm.LoadGeoBench'), dict(type='mmrsfm.PackSegInputs')]
# partition='0.01x_train' and others: a part of the training set.
_dataset = dict(type='mmrsfm.GeoBench', partition='default', pipeline=pipeline)
_test = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(split='train', **_dataset),
)
val_dataloader = dict(dataset=dict(split='valid', test_mode=True, **_dataset), **_test)
test_dataloader = dict(dataset=dict(split='test', test_mode=True, **_dataset), **_test)
# The mean over the classes that occur, as the macro average of torchmetrics' Jaccard index.
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10, max_keep_ckpts=1))
# For tools/analysis_tools/geobench.py: the number that the benchmark reports, and the batch of few-shot
# partitions.
metric = 'mIoU'
few_shot_batch_size = 32
