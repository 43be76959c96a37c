_base_ = './scenes_rgb_256px.py'

data_preprocessor = dict(num_classes=10)
size = 64
dataset = dict(type='mmrsfm.EuroSAT', data_root='data/eurosat', data_prefix='EuroSAT_RGB')
load_image = _base_.load_image
train_pipeline = [
    load_image,
    dict(type='mmrsfm.RandomResizedCrop', size=size, scale=(0.2, 1.0), interpolation='bicubic'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [load_image, dict(type='mmrsfm.PackInputs')]
train_dataloader = dict(
    dataset=dict(ann_file='eurosat-train.txt', pipeline=train_pipeline, **dataset)
)
val_dataloader = dict(dataset=dict(ann_file='eurosat-val.txt', pipeline=test_pipeline, **dataset))
test_dataloader = dict(dataset=dict(ann_file='eurosat-test.txt', pipeline=test_pipeline, **dataset))
