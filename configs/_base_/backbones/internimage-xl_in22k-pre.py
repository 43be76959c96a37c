# InternImage-XL from its ImageNet-22k weights (fine-tuned on ImageNet-1k at 384 pixels); see
# rvsa-base_mae-pre.py for what the three parts are.
backbone = dict(
    type='mmrsfm.InternImage',
    arch='xlarge',
    out_indices=(0, 1, 2, 3),
    drop_path_rate=0.2,
    init_cfg=dict(
        type='mmrsfm.Pretrained', checkpoint='checkpoints/internimage_xl_22kto1k_384.pth'
    ),
)
channels = [192, 384, 768, 1536]
# faithful: the published runs named these values, but their constructor matched no parameter, so that
# every layer had the full learning rate. False gives the decay that was meant.
layer_decay = dict(
    constructor='mmrsfm.InternImageLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(num_layers=39, layer_decay_rate=0.94, depths=[5, 5, 24, 5], faithful=True),
)
