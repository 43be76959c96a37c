# LEVIR-CD: buildings, 0.5 m; 7,120, 1,024 and 2,048 patches of 256x256 pixels (PNG).
_base_ = './change_256px.py'

dataset = dict(type='LEVIR_CD_Dataset', data_root='data/levir-cd')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
