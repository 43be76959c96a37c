# GUSO for registration: the radar image of a pair is displaced by a map that is known, anew in every
# epoch of the training, always the same in tests.
_base_ = './guso_512px.py'

warp = dict(
    type='mmrsfm.RandomHomography',
    moving='sar',
    rotation=15.0,
    scale=(0.9, 1.1),
    shift=0.06,
    perspective=0.02,
)
pack = dict(type='mmrsfm.PackInputs', algorithm_keys=('homography',))
train_pipeline = [_base_.load_image, *_base_.augment, warp, pack]
test_pipeline = [_base_.load_image, dict(seed=0, **warp), pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
# Success below 3 pixels, errors count up to 5: the measure of the data's authors.
val_evaluator = dict(type='mmrsfm.RegistrationMetric', threshold=3.0, cap=5.0)
# The second writes the homographies: submission/ in the work folder, or tools/test.py --out; below the
# names of two folders, part and modality, since names may come again in other parts.
test_evaluator = [val_evaluator, dict(type='mmrsfm.RegistrationSubmission', folders=2)]
