# For CPUs and tests.
_base_ = './vit-base-p16_cross-scale-mae-pre_knn_eurosat-rgb-64px.py'

model = dict(backbone=dict(arch='tiny'))
test_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)
