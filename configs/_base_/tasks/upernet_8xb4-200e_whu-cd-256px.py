_base_ = './unet_8xb4-200e_whu-cd-256px.py'

# The same with UPerNet in the place of UNet.
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg.UPerHead',
        num_classes=2,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        ignore_index=255,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
