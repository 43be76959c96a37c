# MMEarth, tiles of 128 x 128 pixels, for patches of 16 pixels: windows of 112.
_base_ = './mmearth_56px.py'

train_pipeline = [
    _base_.load_tile,
    dict(type='mmrsfm.RandomCrop', size=112),
    _base_.normalize,
    dict(type='mmrsfm.DrawMaskNoise', patch_size=16, num_views=1),
    _base_.pack,
]
train_dataloader = dict(
    dataset=dict(data_root='data/mmearth/data_1M_v001', pipeline=train_pipeline)
)
