_base_ = './scenes_rgb_256px.py'

data_preprocessor = dict(num_classes=21)
dataset = dict(
    type='mmrsfm.UCMerced', data_root='data/uc_merced', data_prefix='UCMerced_LandUse/Images'
)
train_dataloader = dict(dataset=dict(ann_file='uc_merced-train.txt', **dataset))
val_dataloader = dict(dataset=dict(ann_file='uc_merced-val.txt', **dataset))
test_dataloader = dict(dataset=dict(ann_file='uc_merced-test.txt', **dataset))
