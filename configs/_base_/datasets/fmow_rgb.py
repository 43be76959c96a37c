# Functional Map of the World, RGB. The constants are those of Cross-Scale MAE's pretraining, times 255.
contract = dict(
    band_names=['R', 'G', 'B'],
    sensor='WorldView and GeoEye RGB (fMoW-RGB)',
    scale=1.0,
    # Of the imagery: what is trained on it comes under its terms. No gsd: it varies.
    licence='Functional Map of the World Challenge Public License (imagery)',
    mean=[110.6519, 111.1253, 103.8973],
    std=[50.5626, 49.0878, 49.6094],
)
data_root = 'data/fmow-rgb'
load_image = dict(type='mmrsfm.LoadMultiBandImage', to_float32=False)
# Used for pretraining, fine-tuning and linear probing alike, as published.
augment = [
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='vertical'),
    dict(
        type='mmrsfm.RandomResizedCrop',
        size=128,
        scale=(0.25, 1.0),
        interpolation='bicubic',
        antialias=True,
    ),
]
