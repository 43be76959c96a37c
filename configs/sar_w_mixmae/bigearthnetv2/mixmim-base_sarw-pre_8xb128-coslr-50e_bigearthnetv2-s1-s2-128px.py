# Both sensors as one image of 14 bands. The stem keeps its columns for VH and VV; the bands of Sentinel-2
# start with the mean of the two, and learn (mmrsfm.checkpoints.stem). Nothing of this is published.
# Mean and standard deviation of Sentinel-2: reflectance times 1e4 of the training split, bilinear, 128
# pixels, from ConfigILM (github.com/lhackel-tub/ConfigILM, MIT); those of Sentinel-1 belong to the weights.
_base_ = './mixmim-base_sarw-pre_8xb128-coslr-50e_bigearthnetv2-s1-128px.py'

# fmt: off
_bands = [
    'VH', 'VV', 'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12',
]
data_preprocessor = dict(
    band_names=_bands,
    sensor='Sentinel-1, Sentinel-2 L2A',
    mean=[-19.1966, -12.5144, 360.64, 438.37, 614.05, 588.40, 942.74, 1769.84, 2049.47, 2193.29, 2235.48,
          2241.10, 1568.21, 997.71],
    std=[5.4501, 5.0019, 563.13, 601.33, 597.17, 677.86, 727.52, 1087.40, 1261.40, 1358.79, 1342.47,
         1294.34, 1063.92, 806.88],
)
# fmt: on
model = dict(
    backbone=dict(
        in_channels=len(_bands),
        init_cfg=dict(
            adapt=dict(bands='by_name', source_bands=['VH', 'VV'], ignore=['sensor']),
            contract=dict(band_names=_bands),
        ),
    )
)
_dataset = dict(dataset=dict(modalities=['s1', 's2']))
train_dataloader = _dataset
val_dataloader = _dataset
test_dataloader = _dataset
