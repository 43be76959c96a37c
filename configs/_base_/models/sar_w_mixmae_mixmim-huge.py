_base_ = './sar_w_mixmae_mixmim-base.py'

model = dict(backbone=dict(arch='huge'))
