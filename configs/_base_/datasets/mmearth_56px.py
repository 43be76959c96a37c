# MMEarth, 1.2 million tiles of 64 x 64 pixels, for patches of 8 pixels: windows of 56, without flips, as
# published. Sentinel-2 is L1C or L2A, and each tile is normalised by the statistics of its product,
# which come with the data.
band_names = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12'
]  # fmt: skip
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=band_names,
    gsd=10.0,
    licence='CC-BY-4.0 (imagery: MMEarth, contains modified Copernicus Sentinel data)',
)
load_tile = dict(type='mmrsfm.LoadMMEarth')
normalize = dict(type='mmrsfm.NormalizeMMEarth', rules='corrected')
pack = dict(type='mmrsfm.PackInputs', algorithm_keys=('targets',), meta_keys=('tile_id', 's2_type'))
train_pipeline = [
    load_tile,
    dict(type='mmrsfm.RandomCrop', size=56),
    normalize,
    dict(type='mmrsfm.DrawMaskNoise', patch_size=8, num_views=1),
    pack,
]
train_dataloader = dict(
    batch_size=512,
    num_workers=16,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmrsfm.MMEarth',
        data_root='data/mmearth/data_1M_v001_64',
        # Made by data_converters/pack_mmearth.py, faster to read (docs/datasets.md): packed='train.tiles'.
        packed=None,
        pipeline=train_pipeline,
    ),
)
