# The 43 classes of CORINE Land Cover level 3, which only version 1 has.
_base_ = './mixmim-base_sarw-pre_8xb128-coslr-50e_bigearthnetv1-s1-128px.py'

num_classes = 43
model = dict(head=dict(num_classes=num_classes, loss=dict(loss_weight=1 / num_classes)))
_dataset = dict(dataset=dict(num_classes=num_classes))
train_dataloader = _dataset
val_dataloader = _dataset
test_dataloader = _dataset
