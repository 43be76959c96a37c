# OSCD, RGB: Sentinel-2, 10 m, patches of 96x96 pixels that are enlarged to 224. The training labels are
# loaded after that, and stay at 96x96. The validation is on the test patches, as published.
_base_ = './change_256px.py'

crop_size = (224, 224)
resize = dict(type='MultiImgResize', scale=crop_size, keep_ratio=True)
train_pipeline = [
    _base_.train_pipeline[0],
    resize,
    *_base_.train_pipeline[1:3],
    dict(type='MultiImgRandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[4:],
]
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[1:]]
val_pipeline = test_pipeline
dataset = dict(type='OSCD_RGB_CD_Dataset', data_root='data/oscd')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset))
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path_from='test/A', img_path_to='test/B', seg_map_path='test/label'),
        pipeline=test_pipeline,
        **dataset,
    )
)
