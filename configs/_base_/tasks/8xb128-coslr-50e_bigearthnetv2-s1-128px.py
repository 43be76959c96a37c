_base_ = [
    '../models/multi_label_mixmim.py',
    '../datasets/bigearthnetv2_s1_128px.py',
    '../schedules/sar_w_mixmae_finetune_adamw_coslr_50e.py',
    '../default_runtime.py',
]
default_scope = 'mmpretrain'
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(save_best='multi-label/weighted', rule='greater'),
    visualization=dict(type='mmrsfm.VisualizationHook'),
)
visualizer = dict(type='UniversalVisualizer')
