# SAMRS for MTP with images of 448x448; see the one of 224.
_base_ = './samrs_224px.py'

image_size = 448
_geometry = [
    _base_.load_labels,
    _base_.flip,
    dict(type='mmrsfm.MultiTaskRandomResize', scale=(448, 448), ratio_range=(0.5, 2.0)),
    dict(type='mmrsfm.MultiTaskRandomCrop', size=448),
    _base_.drop_empty,
]
train_pipeline = [
    _base_.load_image,
    *_geometry,
    dict(type='mmrsfm.PhotometricDistortion'),
    _base_.pack,
]
published_pipeline = [_base_.published_load, *_geometry, _base_.published_distortion, _base_.pack]
val_pipeline = [
    _base_.load_image,
    dict(type='mmrsfm.MultiTaskResize', scale=(448, 448)),
    _base_.load_labels,
    _base_.pack,
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
