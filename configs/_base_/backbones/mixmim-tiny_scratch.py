# A small MixMIM for CPUs, tests and demonstrations, from random weights.
backbone = dict(type='mmrsfm.MixMIM', arch='tiny', img_size=128, in_channels=2)
channels = [32, 64, 128, 256]
