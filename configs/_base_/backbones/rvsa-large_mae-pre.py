# ViT-L with RVSA from MAE weights (Million-AID, 1600 epochs); see the base model.
backbone = dict(
    type='mmrsfm.RVSAViT',
    arch='large',
    patch_size=16,
    out_indices=(7, 11, 15, 23),
    drop_path_rate=0.3,
    init_cfg=dict(type='mmrsfm.Pretrained', checkpoint='checkpoints/vit-l-mae-checkpoint-1599.pth'),
)
channels = [1024, 1024, 1024, 1024]
layer_decay = dict(
    constructor='mmrsfm.RVSALayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(num_layers=24, layer_decay_rate=0.9, faithful=True),
)
