# The tiles of sentinel2_demo_cls_32px.py with the bands of MMEarth, in their order, and a tenth of the
# labels.
_base_ = './sentinel2_demo_cls_32px.py'

band_names = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12'
]  # fmt: skip
data_preprocessor = dict(
    band_names=band_names,
    mean=[
        0.1459, 0.1179, 0.0954, 0.0781, 0.0928, 0.1259, 0.1393, 0.1476, 0.1369, 0.0644, 0.1061,
        0.0652,
    ],
    std=[
        0.0134, 0.0195, 0.0228, 0.0300, 0.0365, 0.0784, 0.0935, 0.1090, 0.0989, 0.0475, 0.0950,
        0.0643,
    ],
)  # fmt: skip
load_image = dict(type='mmrsfm.LoadMultiBandImage', bands=band_names, scale=1e-4)
train_pipeline = [load_image, *_base_.train_pipeline[1:]]
test_pipeline = [load_image, dict(type='mmrsfm.PackInputs')]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmrsfm.LabelFraction',
        fraction=0.1,
        dataset=dict(data_prefix='train', pipeline=train_pipeline, **_base_.dataset),
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
