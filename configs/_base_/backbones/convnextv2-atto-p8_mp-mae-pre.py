# ConvNeXtV2-Atto that MP-MAE pretrained on MMEarth, all modalities, crops of 56 pixels in patches of 8.
# Images of any size. A config that inherits this and a task puts the parts in their places: model.backbone
# with the bands of the task, and the in_channels of the head. The bands of the weights, B01 to B12 without
# B10 and with B8A before B08, are found by name; `contract` says those of the task.
backbone = dict(
    type='mmrsfm.ConvNeXtV2',
    arch='atto',
    in_channels=12,
    patch_size=8,
    # As in the published fine-tunings; in the pretraining 1e-6.
    grn_eps=1e-4,
    drop_path_rate=0.1,
    init_cfg=dict(
        type='mmrsfm.Pretrained',
        checkpoint='checkpoints/pt-all_mod_atto_1M_64_uncertainty_56-8/checkpoint-199.pth',
        adapt='by_name',
    ),
)
channels = [40, 80, 160, 320]
# What MMEarth's UNet takes: both maps of the stem, and stages 1 to 3.
unet_maps = dict(out_indices=(1, 2, 3), stem_maps=True)
unet_channels = [40, 40, 80, 160, 320]
layer_decay = dict(
    constructor='mmrsfm.ConvNeXtLayerDecayOptimWrapperConstructor',
    # faithful=True: the full learning rate for the stem, as published.
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
