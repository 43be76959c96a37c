# The imagery of the quickstart: a Sentinel-2 L1C scene on one grid of 10 m, cut into tiles by
# tools/demo/sentinel2_job.py. Reflectance is stored times 10,000; the constants are those of the
# training strip.
band_names = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12'
]  # fmt: skip
contract = dict(
    band_names=band_names,
    sensor='Sentinel-2 L1C',
    scale=1e-4,
    offset=0.0,
    gsd=10.0,
    licence='CC0-1.0; contains modified Copernicus Sentinel data (imagery)',
    mean=[
        0.1459, 0.1179, 0.0954, 0.0781, 0.0928, 0.1259, 0.1393, 0.1369, 0.1476, 0.0644, 0.0013,
        0.1061, 0.0652,
    ],
    std=[
        0.0134, 0.0195, 0.0228, 0.0300, 0.0365, 0.0784, 0.0935, 0.0989, 0.1090, 0.0475, 0.0003,
        0.0950, 0.0643,
    ],
)  # fmt: skip
load_image = dict(type='mmrsfm.LoadMultiBandImage', bands=band_names, scale=contract['scale'])
