# EuroSAT (RGB) in the folders that MTP reads: data/eurosat/{train,val}/<class>/*, 16,200 and 5,400 images.
# The test is on the images of the validation, as published.
_base_ = './scenes_224px.py'

train_dataloader = dict(dataset=dict(data_root='data/eurosat/train'))
val_dataloader = dict(dataset=dict(data_root='data/eurosat/val'))
test_dataloader = val_dataloader
