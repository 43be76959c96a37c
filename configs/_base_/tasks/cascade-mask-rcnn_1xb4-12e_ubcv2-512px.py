_base_ = [
    '../models/cascade_mask_rcnn.py',
    '../datasets/ubcv2_512px.py',
    '../schedules/mtp_adamw_step_12e.py',
    '../default_runtime.py',
]
default_scope = 'mmdet'
heads = [dict(head, num_classes=1) for head in _base_.model.roi_head.bbox_head]
model = dict(
    data_preprocessor=dict(_delete_=True, **_base_.data_preprocessor),
    roi_head=dict(bbox_head=heads, mask_head=dict(num_classes=1)),
)
auto_scale_lr = dict(enable=False, base_batch_size=4)
default_hooks = dict(checkpoint=dict(interval=3))
log_processor = dict(window_size=50)
visualizer = dict(type='DetLocalVisualizer', name='visualizer')
