# The published pretraining: 8 x 16 pairs of 512x512 pixels, 12 epochs of MaRS-16M.
_base_ = [
    '../_base_/models/mars_swinv2-base.py',
    '../_base_/datasets/mars16m_512px.py',
    '../_base_/schedules/mars_adamw_coslr_12e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

train_dataloader = dict(batch_size=16)
