# 43 classes, several for an image, 120 pixels: mean of the binary cross-entropies, micro F1.
_base_ = './classification.py'

bands = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12'
]  # fmt: skip
_set = dict(data_root='data/geobench/classification_v1.0/m-bigearthnet', bands=bands)
num_classes = 43
model = dict(
    data_preprocessor=dict(band_names=bands),
    head=dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=num_classes,
        # mmpretrain adds the classes up.
        loss=dict(
            type='LabelSmoothLoss',
            label_smooth_val=0.2,
            mode='multi_label',
            use_sigmoid=True,
            num_classes=num_classes,
            loss_weight=1 / num_classes,
        ),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)
train_dataloader = dict(dataset=_set)
val_dataloader = dict(dataset=_set)
test_dataloader = dict(dataset=_set)
val_evaluator = dict(_delete_=True, type='mmrsfm.MultiLabelAPMetric')
test_evaluator = val_evaluator
metric = 'multi-label/f1_micro'
