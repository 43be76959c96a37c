_base_ = [
    '../../_base_/tasks/geobench/m-chesapeake.py',
    '../../_base_/backbones/convnextv2-atto-p8_mp-mae-pre.py',
]
_bands = _base_.bands
model = dict(
    backbone=dict(_base_.backbone, in_channels=len(_bands), **_base_.unet_maps),
    decode_head=dict(type='mmrsfm.ConvNeXtUNetHead', in_channels=_base_.unet_channels),
)
model['backbone']['init_cfg'] = dict(_base_.backbone.init_cfg, contract=dict(band_names=_bands))
