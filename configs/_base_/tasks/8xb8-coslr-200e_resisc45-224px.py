_base_ = [
    '../models/linear_cls.py',
    '../datasets/resisc45_224px.py',
    '../schedules/mtp_adamw_coslr_200e.py',
    '../default_runtime.py',
]
default_scope = 'mmpretrain'
model = dict(head=dict(num_classes=45))
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=40),
    visualization=dict(type='VisualizationHook', enable=False),
)
visualizer = dict(type='UniversalVisualizer')
