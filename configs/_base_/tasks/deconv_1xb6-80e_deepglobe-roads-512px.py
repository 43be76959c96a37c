_base_ = [
    '../models/deconv_roads.py',
    '../datasets/deepglobe_roads_512px.py',
    '../schedules/mars_adam_step_80e.py',
    '../default_runtime.py',
]
default_scope = 'mmseg'
# Tested as published: in windows that do not overlap.
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=_base_.crop_size),
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
