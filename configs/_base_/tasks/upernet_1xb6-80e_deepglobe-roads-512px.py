_base_ = [
    '../models/upernet.py',
    '../datasets/deepglobe_roads_512px.py',
    '../schedules/mars_adam_step_80e.py',
    '../default_runtime.py',
]
default_scope = 'mmseg'
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    decode_head=dict(num_classes=2),
    test_cfg=dict(crop_size=_base_.crop_size, stride=_base_.crop_size),
)
auto_scale_lr = dict(base_batch_size=6)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=5, save_best='IoU', rule='greater'),
    visualization=dict(type='mmrsfm.VisualizationHook'),
)
log_processor = dict(by_epoch=True, window_size=50)
env_cfg = dict(cudnn_benchmark=True)
visualizer = dict(type='SegLocalVisualizer', name='visualizer')
