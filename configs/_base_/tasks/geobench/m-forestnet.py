# 12 classes; Landsat 8, under the names of the bands of Sentinel-2 that are most alike. Not among the sets of
# MP-MAE's publication.
_base_ = './classification.py'

bands = ['B02', 'B03', 'B04', 'B8A', 'B11', 'B12']
_substitutes = dict(B02='blue', B03='green', B04='red', B8A='nir', B11='swir1', B12='swir2')
_set = dict(
    data_root='data/geobench/classification_v1.0/m-forestnet', bands=bands, substitutes=_substitutes
)
model = dict(data_preprocessor=dict(band_names=bands), head=dict(num_classes=12))
train_dataloader = dict(dataset=_set)
val_dataloader = dict(dataset=_set)
test_dataloader = dict(dataset=_set)
