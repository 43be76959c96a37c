_base_ = [
    '../models/upernet.py',
    '../datasets/spacenetv1_384px.py',
    '../schedules/mtp_adamw_coslr_80k.py',
    '../default_runtime.py',
]
default_scope = 'mmseg'
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(with_cp=False),
    decode_head=dict(num_classes=2),
    test_cfg=dict(crop_size=_base_.crop_size, stride=(256, 256)),
)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=5000),
    visualization=dict(type='SegVisualizationHook', interval=1),
)
env_cfg = dict(cudnn_benchmark=True)
visualizer = dict(type='SegLocalVisualizer', name='visualizer')
