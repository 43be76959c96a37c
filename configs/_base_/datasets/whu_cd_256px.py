# WHU-CD: buildings, 0.2 m; up to 5,344, 768 and 1,528 patches of 256x256 pixels.
_base_ = './change_256px.py'

dataset = dict(type='WHU_CD_Dataset', data_root='data/whu-cd')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
