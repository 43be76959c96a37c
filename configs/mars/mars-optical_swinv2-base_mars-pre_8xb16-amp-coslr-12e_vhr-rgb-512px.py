# The continued pretraining on optical images that the overview of MaRS names; no code of it was
# published, so the settings are ours. One branch: reconstruction and teacher, nothing to contrast.
# It starts from the optical half of a pretraining of ones own, with its attention and pixel head.
_base_ = [
    '../_base_/models/mars_swinv2-base.py',
    '../_base_/datasets/vhr_rgb_512px.py',
    '../_base_/schedules/mars_adamw_coslr_12e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

model = dict(
    modalities=dict(_delete_=True, rgb=3),
    backbone=dict(init_cfg=None),
    contrast=None,
    init_cfg=dict(
        type='mmrsfm.Pretrained',
        checkpoint='work_dirs/mars_swinv2-base_8xb16-amp-coslr-12e_mars16m-512px/epoch_12.pth',
    ),
)
train_dataloader = dict(batch_size=16)
