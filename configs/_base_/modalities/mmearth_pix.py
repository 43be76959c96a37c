# Sentinel-2, and the other maps.
s2_bands = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12']
targets = dict(
    # picture: the channels that stand for a map in pictures.
    sentinel2=dict(type='map', channels=12, norm_pix=True, source='inputs', picture=(3, 2, 1)),
    # VV, VH, HH, HV of ascending and of descending orbits; as pictures VV, VH, VV of the former.
    sentinel1=dict(type='map', channels=8, picture=(0, 1, 0)),
    # Elevation and slope.
    aster=dict(type='map', channels=2, picture=(0,)),
    dynamic_world=dict(type='class_map', classes=9),
    # Height and its standard deviation.
    canopy_height_eth=dict(type='map', channels=2, picture=(0,)),
    esa_worldcover=dict(type='class_map', classes=11),
)
load_modalities = dict(
    type='mmrsfm.LoadMMEarth',
    inputs=dict(sentinel2=s2_bands),
    # What the model sees parts of is in the sample already.
    targets=[name for name in targets if name != 'sentinel2'],
)
