# All 13 bands in the order of Sentinel-2 (in the files B8A comes last). Mean and standard deviation
# are the published ones of the EuroSAT training split, as reflectance. The reference of Cross-Scale
# MAE stretches mean +- 2 std to 8 bits and clips; here values are only normalised.
_base_ = './eurosat_rgb_64px.py'

band_names = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12'
]  # fmt: skip
data_preprocessor = dict(
    _delete_=True,
    type='mmrsfm.MultiBandDataPreprocessor',
    num_classes=10,
    band_names=band_names,
    sensor='Sentinel-2 L1C',
    scale=1e-4,
    offset=0.0,  # the products are older than baseline 04.00
    gsd=10.0,
    mean=[
        0.135440547, 0.111824400, 0.104292984, 0.094762620, 0.119947284, 0.199979091, 0.236922293,
        0.229682608, 0.259414081, 0.073208340, 0.001211328, 0.181901028, 0.111892391,
    ],
    std=[
        0.024571763, 0.033300778, 0.039509249, 0.059375056, 0.056641700, 0.086118399, 0.108663139,
        0.111798171, 0.123158581, 0.040491979, 0.000477584, 0.100258768, 0.076130323,
    ],
)  # fmt: skip
load_image = dict(type='mmrsfm.LoadMultiBandImage', bands=band_names, scale=1e-4)
train_pipeline = [load_image, *_base_.train_pipeline[1:]]
test_pipeline = [load_image, *_base_.test_pipeline[1:]]
dataset = dict(modality='all_bands', data_prefix='EuroSAT_MS')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset))
