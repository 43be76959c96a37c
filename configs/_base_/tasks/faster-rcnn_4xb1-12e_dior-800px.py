_base_ = [
    '../models/faster_rcnn.py',
    '../datasets/dior_800px.py',
    '../schedules/mtp_adamw_step_12e.py',
    '../default_runtime.py',
]
default_scope = 'mmdet'
model = dict(backbone=dict(with_cp=True), roi_head=dict(bbox_head=dict(num_classes=20)))
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(checkpoint=dict(interval=3), visualization=dict(type='DetVisualizationHook'))
log_processor = dict(window_size=50)
visualizer = dict(type='DetLocalVisualizer', name='visualizer')
