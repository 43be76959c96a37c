# SARDet-100K read as one band, the amplitude, in 8 bits.
_base_ = './sardet100k_512px.py'

# Normalised as the 8-bit SAR images (Umbra) of the pretraining.
data_preprocessor = dict(
    type='mmrsfm.MultiBandDetDataPreprocessor',
    mean=[36.42],
    std=[33.89],
    pad_size_divisor=32,
)
load = dict(type='mmrsfm.LoadMultiBandImage', bands=[1], nodata=None, to_float32=False)
train_pipeline = [load, *_base_.train_pipeline[1:]]
test_pipeline = [load, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
