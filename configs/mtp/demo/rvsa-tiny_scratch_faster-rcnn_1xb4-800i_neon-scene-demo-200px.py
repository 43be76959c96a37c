# Trees of a whole scene (2299 x 2472 pixels, a forest in Yellowstone), learned from the three other images
# of NEON in the same package: 483 boxes, most of another place in Yellowstone.
_base_ = ['./rvsa-tiny_scratch_faster-rcnn_1xb4-600i_neon-demo-200px.py']

data_root = 'data/neon_demo/scene/'
# Enough trees to learn what trees are: mirror images help, where the few of the other config are learned by heart.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(data_root=data_root))
test_evaluator = dict(ann_file=data_root + 'test.json')

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=20),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=20, end=800),
]
train_cfg = dict(max_iters=800)
