_base_ = [
    '../models/oriented_rcnn.py',
    '../datasets/dota1_1024px.py',
    '../schedules/mtp_adamw_step_12e.py',
    '../default_runtime.py',
]
default_scope = 'mmrotate'
model = dict(backbone=dict(with_cp=True), roi_head=dict(bbox_head=dict(num_classes=15)))
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(
    checkpoint=dict(interval=8), visualization=dict(type='mmdet.DetVisualizationHook')
)
log_processor = dict(window_size=50)
visualizer = dict(type='RotLocalVisualizer', name='visualizer')
