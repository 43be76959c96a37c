# MixMIM-L from a pretraining of one's own (no weights of this size were released): see
# mixmim-base_sarw-pre.py, and configs/sar_w_mixmae for the pretraining that writes the checkpoint.
backbone = dict(
    type='mmrsfm.MixMIM',
    arch='large',
    img_size=128,
    in_channels=2,
    drop_path_rate=0.1,
    init_cfg=dict(type='mmrsfm.Pretrained', checkpoint='checkpoints/sar_w_mixmae_mixmim-large.pth'),
)
channels = [192, 384, 768, 1536]
layer_decay = dict(
    constructor='mmrsfm.MixMIMLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(depths=[2, 2, 18, 2], layer_decay_rate=0.7),
)
