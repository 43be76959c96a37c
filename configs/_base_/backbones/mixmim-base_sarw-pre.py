# MixMIM-B that SAR-W-MixMAE pretrained on BigEarthNet v2: VH and VV in dB, 128 pixels. Images of any size.
# A config that inherits this and a task puts the parts in their places: model.backbone, and the
# in_channels of neck or head; out_indices=(0, 1, 2, 3) for dense tasks. (BigEarthNet v1, where
# SEN12-FLOOD starts: benv1_pretrain_checkpoint_64.pth, sha256 b4f385f9, with its own mean and std.)
backbone = dict(
    type='mmrsfm.MixMIM',
    arch='base',
    img_size=128,
    in_channels=2,
    drop_path_rate=0.1,
    init_cfg=dict(
        type='mmrsfm.Pretrained',
        checkpoint='checkpoints/benv2_pretrain_checkpoint_64.pth',
        sha256='13ab3855a2faee9dc1ca0fb50ba483cc4e0d735b9fc8d1f03e75764c356d0b93',
    ),
)
channels = [128, 256, 512, 1024]
# Published with 0.7, where the head, too, has only 0.7 of the learning rate: faithful=True does that.
layer_decay = dict(
    constructor='mmrsfm.MixMIMLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(depths=[2, 2, 18, 2], layer_decay_rate=0.7),
)
