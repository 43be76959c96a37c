# The small ViT + RVSA of the demonstrations, as `bash tools/quickstart.sh --task mtp` pretrains it.
backbone = dict(
    type='mmrsfm.RVSAViT',
    arch='tiny',
    patch_size=8,
    init_cfg=dict(
        type='mmrsfm.Pretrained',
        checkpoint='work_dirs/quickstart_mtp/pretraining/encoder_iter_300.pth',
    ),
)
channels = [96, 96, 96, 96]
