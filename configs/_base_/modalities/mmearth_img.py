# Sentinel-2, and what is said of a tile as a whole. (It is not published whether img_mod has
# Sentinel-2 among its outputs: the names below pred_dict in a checkpoint tell.)
s2_bands = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12']
targets = dict(
    sentinel2=dict(type='map', channels=12, norm_pix=True, source='inputs', picture=(3, 2, 1)),
    # Temperature (mean, smallest, largest) and precipitation of two months and the year.
    era5=dict(type='vector', channels=12),
    # Sine and cosine.
    lat=dict(type='vector', channels=2),
    lon=dict(type='vector', channels=2),
    biome=dict(type='class', classes=14),
    eco_region=dict(type='class', classes=846),
    month=dict(type='vector', channels=2),
)
load_modalities = dict(
    type='mmrsfm.LoadMMEarth',
    inputs=dict(sentinel2=s2_bands),
    # What the model sees parts of is in the sample already.
    targets=[name for name in targets if name != 'sentinel2'],
)
