_base_ = './mp_mae_convnextv2-atto.py'

model = dict(backbone=dict(arch='tiny'))
