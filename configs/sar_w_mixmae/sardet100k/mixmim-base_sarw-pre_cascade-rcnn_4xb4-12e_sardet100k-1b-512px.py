# Targets in SAR images of one band, 8-bit amplitudes of many sensors: the stem takes the mean of its VH and
# VV filters. The same lines put the encoder into any other config of mmdet or mmrotate.
_base_ = [
    '../../_base_/tasks/cascade-rcnn_4xb4-12e_sardet100k-1b-512px.py',
    '../../_base_/backbones/mixmim-base_sarw-pre.py',
]
model = dict(
    backbone={
        **_base_.backbone,
        'in_channels': 1,
        'out_indices': (0, 1, 2, 3),
        'with_cp': True,
        'init_cfg': {**_base_.backbone.init_cfg, 'adapt': 'mean'},
    },
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = _base_.layer_decay
