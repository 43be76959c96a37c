# 10 classes, 64 pixels. Its bands are chosen by what they really are (see mmrsfm.GeoBench).
_base_ = './classification.py'

bands = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12'
]  # fmt: skip
_set = dict(data_root='data/geobench/classification_v1.0/m-eurosat', bands=bands)
model = dict(data_preprocessor=dict(band_names=bands), head=dict(num_classes=10))
train_dataloader = dict(dataset=_set)
val_dataloader = dict(dataset=_set)
test_dataloader = dict(dataset=_set)
few_shot_batch_size = 8
