_base_ = [
    '../models/upernet.py',
    '../datasets/earthmiss_512px.py',
    '../schedules/mars_adamw_poly_15k.py',
    '../default_runtime.py',
]
default_scope = 'mmseg'
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    decode_head=dict(num_classes=8),
    # Tiles beside each other, as the authors of the data test.
    test_cfg=dict(crop_size=_base_.crop_size, stride=_base_.crop_size),
)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=1500, save_best='mIoU'),
)
visualizer = dict(type='SegLocalVisualizer', name='visualizer')
