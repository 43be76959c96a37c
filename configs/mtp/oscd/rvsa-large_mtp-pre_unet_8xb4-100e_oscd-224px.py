_base_ = [
    '../../_base_/tasks/unet_8xb4-100e_oscd-224px.py',
    '../../_base_/backbones/rvsa-large_mtp-pre.py',
]
model = dict(
    backbone=dict(img_size=224, with_fpn=False, **_base_.backbone),
    decode_head=dict(in_channels=_base_.channels, encoder_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
