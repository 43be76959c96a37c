# A small SwinV2 for CPUs, tests and demonstrations, from random weights; the encoder of the tiny MaRS.
backbone = dict(
    type='mmrsfm.SwinV2',
    arch=dict(embed_dims=32, depths=[2, 2, 4, 2], num_heads=[2, 4, 8, 16]),
    img_size=128,
    drop_path_rate=0.0,
)
channels = [32, 64, 128, 256]
