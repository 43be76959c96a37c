# CDD (SVCD), season-varying: 10,000, 3,000 and 3,000 pairs of 256x256 pixels (JPEG); the published folder
# OUT is called label here.
_base_ = './change_256px.py'

dataset = dict(type='SVCD_Dataset', data_root='data/cdd')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
