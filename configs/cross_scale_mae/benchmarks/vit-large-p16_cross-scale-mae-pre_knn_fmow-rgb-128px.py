_base_ = './vit-base-p16_cross-scale-mae-pre_knn_fmow-rgb-128px.py'

model = dict(backbone=dict(arch='large'))
