# The same trees, filled boxes as classes of pixels; see yellowstone_demo_obb_192px.py.
_base_ = './atlanta_demo_seg_192px.py'

data_root = 'data/mtp_demo/yellowstone'
metainfo = dict(classes=('background', 'tree'), palette=[[90, 90, 90], [255, 220, 0]])
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_evaluator = dict(_delete_=True, type='IoUMetric', iou_metrics=['mIoU'])
