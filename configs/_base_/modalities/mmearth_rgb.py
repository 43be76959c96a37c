# A masked autoencoder of three bands of Sentinel-2, blue first, as published.
s2_bands = ['B02', 'B03', 'B04']
targets = dict(
    sentinel2=dict(type='map', channels=3, norm_pix=True, source='inputs', picture=(2, 1, 0)),
)
load_modalities = dict(
    type='mmrsfm.LoadMMEarth',
    inputs=dict(sentinel2=s2_bands),
    # What the model sees parts of is in the sample already.
    targets=[name for name in targets if name != 'sentinel2'],
)
