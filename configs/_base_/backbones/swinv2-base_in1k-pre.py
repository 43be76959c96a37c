# SwinV2-B from ImageNet-1k (256 pixels), where MaRS starts from: what its pretraining is compared with.
# The file is mmpretrain's; timm's and Microsoft's are recognised as well. adapt: for other than three
# bands every band gets the mean column, so that one band gets their sum, as in timm.
backbone = dict(
    type='mmrsfm.SwinV2',
    arch='base',
    img_size=512,
    in_channels=3,
    init_cfg=dict(
        type='mmrsfm.Pretrained',
        checkpoint='checkpoints/swinv2-base-w8_3rdparty_in1k-256px_20220803-8ff28f2b.pth',
        adapt='mean',
    ),
)
channels = [128, 256, 512, 1024]
# Not in the published fine-tunings, which have one learning rate for all layers. For a task's config:
# optim_wrapper = _base_.layer_decay; where the schedule has a paramwise_cfg (EarthMiss, DFC25) instead
# optim_wrapper = dict(
#     constructor=_base_.layer_decay.constructor,
#     paramwise_cfg=dict(_delete_=True, **_base_.layer_decay.paramwise_cfg))
layer_decay = dict(
    constructor='mmrsfm.SwinLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(depths=[2, 2, 18, 2], layer_decay_rate=0.9),
)
