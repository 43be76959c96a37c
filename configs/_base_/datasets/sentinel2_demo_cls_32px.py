# Tiles of the quickstart's Sentinel-2 scene, one folder a class: made by `bash tools/quickstart.sh
# --task cls`. The classes follow from thresholds on NDWI, NDVI and NDBI (tools/demo/data_sentinel2.py).
_base_ = './sentinel2_demo.py'

data_preprocessor = dict(type='mmrsfm.MultiBandDataPreprocessor', num_classes=4, **_base_.contract)
train_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [_base_.load_image, dict(type='mmrsfm.PackInputs')]
dataset = dict(
    type='mmrsfm.SceneFolderDataset',
    data_root='data/sentinel2_demo/classes',
    metainfo=dict(classes=('water', 'coast', 'vegetation', 'bare_built')),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(data_prefix='train', pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix='val', pipeline=test_pipeline, test_mode=True, **dataset),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix='test', pipeline=test_pipeline, test_mode=True, **dataset),
)
val_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='SingleLabelMetric')]
test_evaluator = val_evaluator
val_cfg = dict(type='mmrsfm.ValLoop')
test_cfg = dict(type='mmrsfm.TestLoop')
