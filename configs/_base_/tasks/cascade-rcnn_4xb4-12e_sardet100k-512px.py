_base_ = [
    '../models/cascade_rcnn.py',
    '../datasets/sardet100k_512px.py',
    '../schedules/mtp_adamw_step_12e.py',
    '../default_runtime.py',
]
default_scope = 'mmdet'
heads = [dict(head, num_classes=6) for head in _base_.model.roi_head.bbox_head]
model = dict(roi_head=dict(bbox_head=heads))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=3), visualization=dict(type='DetVisualizationHook'))
log_processor = dict(window_size=50)
visualizer = dict(type='DetLocalVisualizer', name='visualizer')
