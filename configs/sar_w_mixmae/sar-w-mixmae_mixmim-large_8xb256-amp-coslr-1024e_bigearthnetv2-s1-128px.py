_base_ = [
    '../_base_/models/sar_w_mixmae_mixmim-large.py',
    '../_base_/datasets/bigearthnetv2_s1_pretrain_128px.py',
    '../_base_/schedules/sar_w_mixmae_adamw_coslr_1024e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

default_hooks = dict(checkpoint=dict(interval=8))
