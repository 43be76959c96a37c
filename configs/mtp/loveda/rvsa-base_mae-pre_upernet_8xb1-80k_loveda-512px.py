_base_ = [
    '../../_base_/tasks/upernet_8xb1-80k_loveda-512px.py',
    '../../_base_/backbones/rvsa-base_mae-pre.py',
]
model = dict(
    backbone=dict(img_size=512, **_base_.backbone),
    decode_head=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
