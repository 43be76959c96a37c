# ViT-B with RVSA from MAE weights (Million-AID, 1600 epochs), as every published MTP fine-tuning has it.
# A config that inherits this and a task puts the three parts in their places: model.backbone, the
# in_channels of neck or head, and optim_wrapper.
backbone = dict(
    type='mmrsfm.RVSAViT',
    arch='base',
    patch_size=16,
    out_indices=(3, 5, 7, 11),
    drop_path_rate=0.3,
    init_cfg=dict(type='mmrsfm.Pretrained', checkpoint='checkpoints/vit-b-checkpoint-1599.pth'),
)
channels = [768, 768, 768, 768]
layer_decay = dict(
    constructor='mmrsfm.RVSALayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(num_layers=12, layer_decay_rate=0.9, faithful=True),
)
