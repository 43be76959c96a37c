# Where the water stands, pixel by pixel. Nothing of this is published with SAR-W-MixMAE: the schedule is
# that of its fine-tuning.
_base_ = [
    '../models/upernet.py',
    '../datasets/flood_masks_512px.py',
    '../schedules/sar_w_mixmae_finetune_adamw_coslr_50e.py',
    '../default_runtime.py',
]
default_scope = 'mmseg'
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(out_indices=(0, 1, 2, 3)),
    # Over the pixels that are known.
    decode_head=dict(num_classes=2, loss_decode=dict(avg_non_ignore=True)),
    test_cfg=dict(crop_size=_base_.crop_size, stride=(384, 384)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=5, save_best='mIoU', rule='greater'))
visualizer = dict(type='SegLocalVisualizer', name='visualizer')
