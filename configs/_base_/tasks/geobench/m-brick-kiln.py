# 2 classes, 64 pixels. Its bands are chosen by what they really are (see mmrsfm.GeoBench): there is no B06
# and no B09, for which their neighbours stand.
_base_ = './classification.py'

bands = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12'
]  # fmt: skip
_substitutes = dict(B06='B07', B09='B8A')
_set = dict(
    data_root='data/geobench/classification_v1.0/m-brick-kiln',
    bands=bands,
    substitutes=_substitutes,
)
model = dict(data_preprocessor=dict(band_names=bands), head=dict(num_classes=2))
train_dataloader = dict(dataset=_set)
val_dataloader = dict(dataset=_set)
test_dataloader = dict(dataset=_set)
