# SIMULATED change of buildings in a panchromatic scene of 0.5 m, in the layout of LEVIR-CD: made by
# `bash tools/quickstart.sh --task cd` (tools/demo/data_atlanta.py).
_base_ = './change_256px.py'

train_pipeline = [
    dict(type='MultiImgLoadImageFromFile'),
    dict(type='MultiImgLoadAnnotations'),
    dict(type='MultiImgRandomRotFlip', rotate_prob=0.0, flip_prob=0.75, degree=(-20, 20)),
    # Where something changes: it is 2 % of the area.
    dict(type='MultiImgRandomCrop', crop_size=(160, 160), cat_max_ratio=0.95),
    dict(type='MultiImgExchangeTime', prob=0.5),
    dict(type='MultiImgPackSegInputs'),
]
dataset = dict(type='LEVIR_CD_Dataset', data_root='data/atlanta_demo/cd')
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset), **loader)
val_dataloader = None
val_evaluator = None
test_dataloader = dict(dataset=dataset, **loader)
test_evaluator = dict(_delete_=True, type='mmrsfm.CDMetric')
