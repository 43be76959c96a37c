# 17 classes, 32 pixels; Sentinel-2 alone. It has no B01 and B09: as published, B02 and B8A stand for them.
_base_ = './classification.py'

bands = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12'
]  # fmt: skip
_substitutes = dict(B01='B02', B09='B8A')
_set = dict(
    data_root='data/geobench/classification_v1.0/m-so2sat', bands=bands, substitutes=_substitutes
)
model = dict(data_preprocessor=dict(band_names=bands), head=dict(num_classes=17))
train_dataloader = dict(dataset=_set)
val_dataloader = dict(dataset=_set)
test_dataloader = dict(dataset=_set)
