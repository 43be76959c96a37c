# One linear layer on the mean of the tokens, and the mean of the binary cross-entropies of 19 classes
# (mmpretrain adds them up). The head starts at almost 0, as published.
num_classes = 19
model = dict(
    type='ImageClassifier',
    head=dict(
        type='MultiLabelLinearClsHead',
        num_classes=num_classes,
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / num_classes),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)
