# NWPU-RESISC45, a fifth for training: lists of "file label" below mtp/, all images in one folder.
_base_ = './scenes_224px.py'

dataset = dict(data_root='data/resisc45', data_prefix='all_img')
train_dataloader = dict(dataset=dict(ann_file='mtp/train_labels_28_mtp.txt', **dataset))
val_dataloader = dict(dataset=dict(ann_file='mtp/valid_labels_28_mtp.txt', **dataset))
test_dataloader = val_dataloader
