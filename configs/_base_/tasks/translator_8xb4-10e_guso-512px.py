_base_ = [
    '../models/translator.py',
    '../datasets/guso_512px.py',
    '../schedules/mars_adamw_coslr_10e.py',
    '../default_runtime.py',
]
default_scope = 'mmpretrain'
model = dict(data_preprocessor=_base_.data_preprocessor)
val_evaluator = dict(type='mmrsfm.TranslationMetric', data_range=(0.0, 255.0))
# The second writes the images: submission/ in the work folder, or tools/test.py --out; below the names of
# two folders, part and modality, since names may come again in other parts.
test_evaluator = [
    val_evaluator,
    dict(type='mmrsfm.TranslationSubmission', dtype='uint8', folders=2),
]
default_hooks = dict(
    checkpoint=dict(interval=1, save_best='translation/psnr', rule='greater'),
    visualization=dict(type='mmrsfm.VisualizationHook'),
)
visualizer = dict(
    type='mmrsfm.TranslationVisualizer',
    name='visualizer',
    modalities=_base_.modalities,
    source='sar',
    target='rgb',
)
