# The small ViT + RVSA of the demonstrations, from random weights. No absolute and no full-attention
# positions: it trains on crops, and tests on whole tiles.
backbone = dict(
    type='mmrsfm.RVSAViT', arch='tiny', patch_size=8, use_abs_pos_emb=False, full_rel_pos=False
)
channels = [96, 96, 96, 96]
