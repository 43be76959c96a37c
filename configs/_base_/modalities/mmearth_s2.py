# A masked autoencoder of Sentinel-2 alone.
s2_bands = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12']
targets = dict(
    sentinel2=dict(type='map', channels=12, norm_pix=True, source='inputs', picture=(3, 2, 1)),
)
load_modalities = dict(
    type='mmrsfm.LoadMMEarth',
    inputs=dict(sentinel2=s2_bands),
    # What the model sees parts of is in the sample already.
    targets=[name for name in targets if name != 'sentinel2'],
)
