# WHU-CD in its patches of 256x256 pixels, enlarged to 512x512 for the network.
_base_ = './whu_cd_256px.py'

crop_size = (512, 512)
resize = dict(type='MultiImgResize', scale=crop_size, keep_ratio=True)
train_pipeline = [
    *_base_.train_pipeline[:2],
    resize,
    _base_.train_pipeline[2],
    dict(type='MultiImgRandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[4:],
]
# Labels after the resizing: predictions are compared at the size of the files.
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
