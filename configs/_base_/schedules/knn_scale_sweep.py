# kNN on frozen features, nothing is trained: the images of the test set at 12.5, 25, 50 and 100 % of
# their size against the training images at full size, as Scale-MAE does. Run it by
#   python tools/test.py CONFIG CHECKPOINT
# A config sets test_cfg.bank_dataset, the training images with the test pipeline, and drops the data
# loaders for training and validation.
test_cfg = dict(
    type='mmrsfm.KNNLoop',
    k=[5, 20],
    metric='cosine',
    weights='uniform',
    scales=[0.125, 0.25, 0.5, 1.0],
    # The normalisation of the averaged patch tokens has no weights in a pretraining checkpoint; as it
    # is initialised it only standardises each feature vector.
    allow_missing=['ln2.*'],
)
