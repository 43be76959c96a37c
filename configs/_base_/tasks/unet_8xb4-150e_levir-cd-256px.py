_base_ = [
    '../models/siamese_unet.py',
    '../datasets/levir_cd_256px.py',
    '../schedules/mtp_adamw_coslr_150e.py',
    '../default_runtime.py',
]
default_scope = 'opencd'
model = dict(data_preprocessor=_base_.data_preprocessor, backbone=dict(with_cp=False))
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=30, save_best='mIoU'),
    visualization=dict(type='CDVisualizationHook', interval=1, img_shape=(256, 256, 3)),
)
log_processor = dict(by_epoch=True, window_size=50)
env_cfg = dict(cudnn_benchmark=True)
vis_backends = [dict(type='CDLocalVisBackend'), dict(type='mmrsfm.TensorboardVisBackend')]
visualizer = dict(type='CDLocalVisualizer', name='visualizer', vis_backends=vis_backends, alpha=1.0)
