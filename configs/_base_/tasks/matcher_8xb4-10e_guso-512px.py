_base_ = [
    '../models/matcher.py',
    '../datasets/guso_warped_512px.py',
    '../schedules/mars_adamw_coslr_10e.py',
    '../default_runtime.py',
]
default_scope = 'mmpretrain'
model = dict(data_preprocessor=_base_.data_preprocessor)
default_hooks = dict(
    checkpoint=dict(interval=1, save_best='registration/rmse', rule='less'),
    visualization=dict(type='mmrsfm.VisualizationHook'),
)
visualizer = dict(
    type='mmrsfm.RegistrationVisualizer',
    name='visualizer',
    modalities=_base_.modalities,
)
