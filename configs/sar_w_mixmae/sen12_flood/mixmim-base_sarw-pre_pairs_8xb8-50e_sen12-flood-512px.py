# From the weights that were pretrained on BigEarthNet v1, whose statistics it takes, as published. The
# released classifier needs model.legacy_tiling=True; README.md says how to test it.
_base_ = [
    '../../_base_/tasks/pairs_8xb8-50e_sen12-flood-512px.py',
    '../../_base_/backbones/mixmim-base_sarw-pre.py',
]
_init = dict(
    type='mmrsfm.Pretrained',
    checkpoint='checkpoints/benv1_pretrain_checkpoint_64.pth',
    sha256='b4f385f96a1eef96c8b32768b57cee79060fe3d920c7273e2c70e43cc1c90700',
)
model = dict(
    backbone={**_base_.backbone, 'init_cfg': _init}, head=dict(in_channels=_base_.channels[-1])
)
optim_wrapper = _base_.layer_decay
