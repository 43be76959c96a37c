# Scenes of ones own, one class a pair: data/scene_labels/{train,val}/{rgb,sar}/<class>/*.tif. Of a pair
# one image may be missing, and one is often taken away in training. Mean and standard deviation are
# those of the pretraining (rgb, Umbra; of Capella's 16 bits 2353.35 and 4327.07).
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    mean=[87.01, 91.52, 83.51, 36.42],
    std=[62.66, 54.58, 53.11, 33.89],
    invalid='nan',
)
load = dict(type='mmrsfm.LoadModalities', modalities=dict(rgb=3, sar=1))
train_pipeline = [
    load,
    dict(type='mmrsfm.RandomResizedCrop', size=256, scale=(0.5, 1.0), interpolation='bilinear'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.DropModality', names=['rgb', 'sar'], prob=0.5),
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [
    load,
    dict(type='mmrsfm.Resize', size=(256, 256), interpolation='bilinear'),
    dict(type='mmrsfm.PackInputs'),
]
dataset = dict(type='mmrsfm.ScenePairDataset', data_root='data/scene_labels', on_missing='keep')
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_prefix=dict(rgb='train/rgb', sar='train/sar'), pipeline=train_pipeline, **dataset
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_prefix=dict(rgb='val/rgb', sar='val/sar'),
        test_mode=True,
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='SingleLabelMetric')]
test_evaluator = val_evaluator
