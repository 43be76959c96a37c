_base_ = [
    '../models/upernet.py',
    '../datasets/dfc25_512px.py',
    '../schedules/mars_adamw_poly_15k.py',
    '../default_runtime.py',
]
default_scope = 'mmseg'
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    decode_head=dict(
        num_classes=4,
        # Damaged buildings are rare.
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=1.0),
            dict(
                type='LovaszLoss',
                loss_name='loss_lovasz',
                reduction='none',
                loss_weight=0.75,
            ),
        ],
    ),
    test_cfg=dict(crop_size=_base_.crop_size, stride=(384, 384)),
)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=1500, save_best='mIoU'),
)
visualizer = dict(type='SegLocalVisualizer', name='visualizer')
