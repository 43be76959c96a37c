# The small ViT + RVSA of the demonstrations, from random weights.
backbone = dict(type='mmrsfm.RVSAViT', arch='tiny', patch_size=8)
channels = [96, 96, 96, 96]
