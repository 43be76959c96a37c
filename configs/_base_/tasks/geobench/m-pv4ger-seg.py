# 2 classes; aerial images. Not among the sets of MP-MAE's publication.
_base_ = './segmentation.py'

# The library's names of red, green and blue, by which weights of Sentinel-2 are found.
bands = ['B04', 'B03', 'B02']
_substitutes = dict(B04='red', B03='green', B02='blue')
_set = dict(
    data_root='data/geobench/segmentation_v1.0/m-pv4ger-seg', bands=bands, substitutes=_substitutes
)
model = dict(data_preprocessor=dict(band_names=bands), decode_head=dict(num_classes=2))
train_dataloader = dict(dataset=_set)
val_dataloader = dict(dataset=_set)
test_dataloader = dict(dataset=_set)
