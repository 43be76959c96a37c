# The published pretraining of the large model: 8 x 12 pairs.
_base_ = [
    '../_base_/models/mars_swinv2-large.py',
    '../_base_/datasets/mars16m_512px.py',
    '../_base_/schedules/mars_adamw_coslr_12e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

train_dataloader = dict(batch_size=12)
optim_wrapper = dict(optimizer=dict(lr=1e-4 * 96 / 256))
auto_scale_lr = dict(base_batch_size=96)
