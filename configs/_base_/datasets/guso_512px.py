# GUSO: optical and radar images of the same ground, 0.16 to 0.98 m, registered; see mmrsfm.GUSODataset
# for the layout. Crops of 512x512 pixels for training, whole images for tests.
dataset_type = 'mmrsfm.GUSODataset'
data_root = 'data/guso'
modalities = dict(rgb=3, sar=1)
# Of the pretraining (radar: that of the 8-bit images), which the encoders have seen.
contract = dict(mean=[87.01, 91.52, 83.51, 36.42], std=[62.66, 54.58, 53.11, 33.89])
data_preprocessor = dict(type='mmrsfm.MultiBandDataPreprocessor', **contract)
# Grey images may be stored with three equal bands.
load_image = dict(
    type='mmrsfm.LoadModalities',
    modalities=dict(rgb=dict(channels=3, bands=[1, 2, 3]), sar=dict(channels=1, bands=[1])),
    allow_missing=False,
    to_float32=False,
)
augment = [
    dict(type='mmrsfm.RandomCrop', size=512),
    dict(type='mmrsfm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmrsfm.RandomRot90'),
]
train_pipeline = [load_image, *augment, dict(type='mmrsfm.PackInputs')]
test_pipeline = [load_image, dict(type='mmrsfm.PackInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmrsfm.EpochSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, parts='*-train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, parts='*-val', pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, parts='*-test', pipeline=test_pipeline),
)
