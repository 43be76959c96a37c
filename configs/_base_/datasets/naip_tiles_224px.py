# Tiles of 0.6 to 1 m, the first three bands. The test set is val + test, as in the reference. Set
# num_classes of the head (and, for mixup, of data_preprocessor): the codes that occur in the labels.
_base_ = './scenes_rgb_256px.py'

data_preprocessor = dict(
    band_names=['R', 'G', 'B'],
    sensor='NAIP',
    scale=1.0,
    mean=[122.3924, 121.4667, 108.1277],
    std=[45.3263, 34.9452, 30.3705],
)
load_image = dict(type='mmrsfm.LoadMultiBandImage', bands=['R', 'G', 'B'], to_float32=False)
train_pipeline = [
    load_image,
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='vertical'),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.Resize', size=(224, 224), interpolation='bilinear'),
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [
    load_image,
    dict(type='mmrsfm.Resize', size=(224, 224), interpolation='bilinear'),
    dict(type='mmrsfm.PackInputs'),
]
dataset = dict(type='mmrsfm.NAIPTiles', data_root='data/naip', data_prefix='tiles')
train_dataloader = dict(dataset=dict(split='train', pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(split='val+test', pipeline=test_pipeline, **dataset))
test_dataloader = dict(dataset=dict(split='val+test', pipeline=test_pipeline, **dataset))
