_base_ = './cross_scale_mae_vit-base-p16.py'

model = dict(backbone=dict(arch='large'), neck=dict(embed_dim=1024))
