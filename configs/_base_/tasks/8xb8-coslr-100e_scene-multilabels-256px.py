_base_ = [
    '../models/linear_cls.py',
    '../datasets/scene_multilabels_256px.py',
    '../schedules/mtp_adamw_coslr_100e.py',
    '../default_runtime.py',
]
default_scope = 'mmpretrain'
num_classes = 3
model = dict(
    data_preprocessor=dict(num_classes=num_classes, to_onehot=True, **_base_.data_preprocessor),
    head=dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=num_classes,
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=20),
    visualization=dict(type='mmrsfm.VisualizationHook'),
)
visualizer = dict(type='UniversalVisualizer')
