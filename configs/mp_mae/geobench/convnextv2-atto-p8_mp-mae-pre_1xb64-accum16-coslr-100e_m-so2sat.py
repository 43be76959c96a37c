_base_ = [
    '../../_base_/tasks/geobench/m-so2sat.py',
    '../../_base_/backbones/convnextv2-atto-p8_mp-mae-pre.py',
]
_bands = _base_.bands
model = dict(
    backbone=dict(_base_.backbone, in_channels=len(_bands)),
    # The backbone returns one vector an image.
    neck=None,
    head=dict(in_channels=_base_.channels[-1]),
)
model['backbone']['init_cfg'] = dict(_base_.backbone.init_cfg, contract=dict(band_names=_bands))
optim_wrapper = _base_.layer_decay
