_base_ = [
    '../../_base_/tasks/upernet_8xb1-80k_spacenetv1-384px.py',
    '../../_base_/backbones/rvsa-base_mtp-pre.py',
]
model = dict(
    backbone=dict(img_size=384, **_base_.backbone),
    decode_head=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
