_base_ = './scenes_rgb_256px.py'

data_preprocessor = dict(num_classes=45)
dataset = dict(type='mmrsfm.RESISC45', data_root='data/resisc45', data_prefix='NWPU-RESISC45')
train_dataloader = dict(dataset=dict(ann_file='resisc45-train.txt', **dataset))
val_dataloader = dict(dataset=dict(ann_file='resisc45-val.txt', **dataset))
test_dataloader = dict(dataset=dict(ann_file='resisc45-test.txt', **dataset))
