# The quickstart's Sentinel-2 scene in the form of MMEarth: made by `bash tools/quickstart.sh --task
# mpmae`. Sentinel-2 and the position are real; land cover has three of Dynamic World's classes (water,
# trees for all dense vegetation, bare ground), derived from NDWI, NDVI and NDBI; the rest is missing.
band_names = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12'
]  # fmt: skip
data_preprocessor = dict(
    type='mmrsfm.MultiBandDataPreprocessor',
    band_names=band_names,
    gsd=10.0,
    licence='CC0-1.0; contains modified Copernicus Sentinel data (imagery)',
)
load_tile = dict(type='mmrsfm.LoadMMEarth', targets=['dynamic_world', 'lat', 'lon'])
normalize = dict(type='mmrsfm.NormalizeMMEarth')
mask = dict(type='mmrsfm.DrawMaskNoise', patch_size=8, num_views=1)
pack = dict(type='mmrsfm.PackInputs', algorithm_keys=('targets',), meta_keys=('tile_id', 's2_type'))
train_pipeline = [
    load_tile,
    dict(type='mmrsfm.RandomCrop', size=48),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomRot90'),
    normalize,
    mask,
    pack,
]
# For pictures.
test_pipeline = [load_tile, dict(type='mmrsfm.CenterCrop', size=48), normalize, mask, pack]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmrsfm.MMEarth',
        data_root='data/sentinel2_demo/mmearth/sentinel2_demo',
        pipeline=train_pipeline,
    ),
)
