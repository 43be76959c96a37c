# A real pair of SpaceNet 6, Rotterdam, 4.5 m: WorldView RGB, and airborne X band SAR of four polarisations
# in dB, of which the northern 39 % is missing. Made by `bash tools/quickstart.sh --task mars`. Training
# and test area are rows of one scene, apart from each other; the statistics are those of the training area.
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=['R', 'G', 'B', 'HH', 'HV', 'VH', 'VV'],
    sensor='WorldView-2 RGB and airborne X band SAR (SpaceNet 6)',
    scale=1.0,
    gsd=4.5,
    licence='CC BY-SA 4.0 (imagery: SpaceNet 6)',
    mean=[113.52, 118.32, 111.41, -10.74, -13.76, -13.06, -9.98],
    std=[51.46, 43.27, 45.36, 5.70, 3.24, 3.79, 5.82],
)
load_image = dict(
    type='mmrsfm.LoadModalities',
    modalities=dict(
        rgb=dict(channels=3, names=['R', 'G', 'B']),
        sar=dict(channels=4, names=['HH', 'HV', 'VH', 'VV']),
    ),
)
train_pipeline = [
    load_image,
    dict(type='mmrsfm.RandomCrop', size=32),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.DrawMaskNoise', patch_size=8, num_views=1),
    dict(type='mmrsfm.PackInputs'),
]
test_pipeline = [
    load_image,
    dict(type='mmrsfm.DrawMaskNoise', patch_size=8, num_views=1),
    dict(type='mmrsfm.PackInputs'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(
        type='mmrsfm.PairedModalityDataset',
        data_root='data/spacenet6_demo/pairs',
        data_prefix=dict(rgb='train/rgb', sar='train/sar'),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=36,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmrsfm.PairedModalityDataset',
        data_root='data/spacenet6_demo/pairs',
        data_prefix=dict(rgb='test/rgb', sar='test/sar'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='mmrsfm.CrossModalRetrievalMetric', topk=(1, 5))
