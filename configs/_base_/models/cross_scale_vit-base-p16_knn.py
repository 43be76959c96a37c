# No head: features only. The weights are named on the command line.
_base_ = './cross_scale_vit-base-p16.py'

model = dict(type='ImageClassifier', backbone=dict(out_type='avg_featmap'))
