# num_classes is that of your data: mmrsfm.ClassCountHook compares them before the first step.
_base_ = [
    '../models/linear_cls.py',
    '../datasets/scene_labels_256px.py',
    '../schedules/mtp_adamw_coslr_100e.py',
    '../default_runtime.py',
]
default_scope = 'mmpretrain'
num_classes = 3
model = dict(
    data_preprocessor=dict(num_classes=num_classes, **_base_.data_preprocessor),
    head=dict(num_classes=num_classes, topk=(1,)),
)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=20),
    visualization=dict(type='mmrsfm.VisualizationHook'),
)
visualizer = dict(type='UniversalVisualizer')
