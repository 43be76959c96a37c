# There is no published split: half of each class to train on, half to test on, by a fixed hash.
_base_ = './scenes_rgb_256px.py'

data_preprocessor = dict(num_classes=19)
dataset = dict(
    type='mmrsfm.WHURS19',
    data_root='data/whu_rs19',
    data_prefix='WHU-RS19',
    fractions=(0.5, 0.0, 0.5),
)
train_dataloader = dict(dataset=dict(split='train', **dataset))
val_dataloader = dict(dataset=dict(split='test', **dataset))
test_dataloader = dict(dataset=dict(split='test', **dataset))
