# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How configs/mtp differs from the published configs of MTP: one table, with reasons."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

ABSENT = '<absent>'

# Name of a published configuration -> folder below configs/mtp.
FOLDERS = {
    'eurosat': 'eurosat',
    'resisc45': 'resisc45',
    'xview': 'xview',
    'dior': 'dior',
    'dior-r': 'dior_r',
    'fair1m20': 'fair1m',
    'dotav1': 'dota1',
    'dotav2': 'dota2',
    'spacenetv1': 'spacenetv1',
    'loveda': 'loveda',
    'oscd': 'oscd',
    'whu': 'whu_cd',
    'levir': 'levir_cd',
    'cdd': 'cdd',
}
# Published initialisation -> how the name of our config begins.
STARTS = {
    'rvsa_b': 'rvsa-base_mae-pre_',
    'rvsa_b+mtp': 'rvsa-base_mtp-pre_',
    'rvsa_l': 'rvsa-large_mae-pre_',
    'rvsa_l+mtp': 'rvsa-large_mtp-pre_',
    'intern_xl': 'internimage-xl_in22k-pre_',
    'intern_xl+mtp': 'internimage-xl_mtp-pre_',
}
# What the runner reads; every other name at the top of a config is a helper of the config itself.
READ = {
    'model', 'data_preprocessor', 'train_dataloader', 'val_dataloader', 'test_dataloader',
    'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper', 'param_scheduler',
    'val_evaluator', 'test_evaluator', 'default_hooks', 'custom_hooks', 'load_from', 'resume',
    'env_cfg', 'log_processor', 'log_level', 'visualizer', 'default_scope', 'randomness',
    'custom_imports', 'find_unused_parameters', 'model_wrapper_cfg', 'work_dir',
}  # fmt: skip


class Row(NamedTuple):
    """One deliberate difference.

    Attributes:
        key: Regular expression of the whole dotted key.
        published: The published value, or ABSENT; a type tests it; ``...`` takes all.
        ours: Likewise of our value; a callable gets the published value and returns ours.
        reason: Why.
        where: Regular expression of ``<dataset>/<initialisation>``; default all.
    """

    key: str
    published: Any
    ours: Any
    reason: str
    where: str = '.*'

    def fits(self, where: str, key: str, published: Any, ours: Any) -> bool:
        if not re.fullmatch(self.where, where) or not re.fullmatch(self.key, key):
            return False
        if not _takes(self.published, published):
            return False
        if callable(self.ours) and not isinstance(self.ours, type):
            return published != ABSENT and ours == self.ours(published)
        return _takes(self.ours, ours)


def _takes(wanted: Any, value: Any) -> bool:
    if wanted is ...:
        return value != ABSENT
    if isinstance(wanted, type):
        return isinstance(value, wanted) and value != ABSENT
    return bool(wanted == value) and type(wanted) is type(value)


CLS = '(eurosat|resisc45)/.*'
DET = '(xview|dior|dior-r|fair1m20|dotav1|dotav2)/.*'
SEG = '(spacenetv1|loveda)/.*'
CD = '(oscd|whu|levir|cdd)/.*'
_PARTS = '(train|val|test)'
_NAMES = {
    'XviewDataset': 'mmrsfm.XViewDataset',
    'FAIR1Mv2Dataset': 'mmrsfm.FAIR1MDataset',
    'DOTADataset': 'mmrsfm.DOTADataset',
    'DOTAv2Dataset': 'mmrsfm.DOTAv2Dataset',
    'SpaceNetV1Dataset': 'mmrsfm.SpaceNetV1Dataset',
}
_ROOTS = {
    'eurosat': 'data/eurosat', 'nwpu': 'data/resisc45', 'yolo_format_patch': 'data/xview',
    'dior': 'data/dior', 'fair1m20_clip': 'data/fair1m', 'split_ms_dotav1': 'data/split_ms_dota',
    'split_ss_dotav2': 'data/split_ss_dotav2', 'loveda_dataset': 'data/loveda',
    'oscd_rgb_patch_dataset': 'data/oscd', 'whu_cd_patch_dataset': 'data/whu-cd',
    'levir_patch_dataset': 'data/levir-cd', 'cdd_dataset': 'data/cdd',
}  # fmt: skip


def _root(path: str) -> str:
    """'<abs-path>/.../dior/DIOR_test_coco.json' -> 'data/dior/DIOR_test_coco.json'."""
    if path == '<abs-path>/spacenet/data':
        return 'data/spacenetv1'
    parts = path.split('/')
    at = max(number for number, part in enumerate(parts) if part in _ROOTS)
    return '/'.join([_ROOTS[parts[at]], *parts[at + 1 :]])


OURS_BY_NAME = 'ours: the same data, with the defects of the published reader mended'
LOOP = 'our training loop: addressed randomness, resumable within an epoch'
RUNTIME = 'part of our default runtime, see configs/_base_/default_runtime.py'
PATHS = 'no paths of the machine of the authors'
SUBMISSION = 'writes what the server takes, in full precision, into the work folder'
CD_METRIC = 'the published F1, precision and recall are those of the changed class: CDMetric'

ROWS = [
    # Names of ours.
    Row(rf'{_PARTS}_dataloader\.dataset\.type|dataset_type', str, _NAMES.get, OURS_BY_NAME,
        '(xview|fair1m20|dotav1|dotav2|spacenetv1)/.*'),
    Row(rf'{_PARTS}_dataloader\.dataset\.type|dataset_type', 'DIORDataset', 'mmrsfm.DIORDataset',
        OURS_BY_NAME, 'dior/.*'),
    Row(r'(val|test)_dataloader\.dataset\.type|dataset_type|'
        r'train_dataloader\.dataset\.datasets\[[01]\]\.type',
        'DIORDataset', 'mmrsfm.DIORRDataset', OURS_BY_NAME, 'dior-r/.*'),
    Row(r'train_dataloader\.sampler\.type', 'DefaultSampler', 'mmrsfm.EpochSampler', LOOP,
        '(?!spacenetv1|loveda).*'),
    Row(r'train_dataloader\.sampler\.type', 'InfiniteSampler', 'mmrsfm.EpochSampler', LOOP, SEG),
    Row(r'train_cfg\.type', 'EpochBasedTrainLoop', 'mmrsfm.EpochTrainLoop', LOOP,
        f'{DET}|{CD}'),
    Row(r'train_cfg\.type', 'IterBasedTrainLoop', 'mmrsfm.IterTrainLoop', LOOP, SEG),
    Row(r'train_cfg\.by_epoch', True, ABSENT, 'said by the type of the loop', CLS),
    Row(r'train_cfg\.type', ABSENT, 'mmrsfm.EpochTrainLoop', LOOP, CLS),
    Row(r'(val|test)_cfg', {}, ABSENT, 'the type that MMEngine takes for {} is named', CLS),
    Row(r'(val|test)_cfg\.type', ABSENT, str, 'the type that MMEngine takes for {} is named', CLS),
    Row(r'default_hooks\.checkpoint\.type', 'CheckpointHook', 'mmrsfm.CheckpointHook', LOOP),
    Row(r'log_processor\.type', 'LogProcessor', 'mmrsfm.LogProcessor', RUNTIME, f'{DET}|{CD}'),
    Row(r'log_processor\.type', ABSENT, 'mmrsfm.LogProcessor', RUNTIME, f'{SEG}|{CLS}'),
    Row(r'log_processor\.by_epoch', bool, ABSENT, 'our log processor follows the loop',
        f'{DET}|{SEG}'),
    # Backbone: what `published_backbone` cannot translate.
    Row(r'optim_wrapper\.constructor', 'LayerDecayOptimizerConstructor_ViT',
        'mmrsfm.RVSALayerDecayOptimWrapperConstructor', 'our name', '.*/rvsa_.*'),
    Row(r'optim_wrapper\.constructor', 'CustomLayerDecayOptimizerConstructor_InternImage',
        'mmrsfm.InternImageLayerDecayOptimWrapperConstructor', 'our name', '.*/intern_.*'),
    Row(r'optim_wrapper\.paramwise_cfg\.faithful', ABSENT, True,
        'what the published runs did, not what their values say (InternImage: no decay)'),
    Row(r'optim_wrapper\.type', ABSENT, 'OptimWrapper', 'the default, named for --amp'),
    # Data.
    Row(r'(.*\.)?data_root', str, _root, PATHS),
    Row(r'(val|test)_evaluator\.ann_file', str, _root, PATHS, '(xview)/.*'),
    Row(r'(val|test)_evaluator\.ann_file', str, _root, PATHS, 'dior/.*'),
    Row(r'(.*\.)?backend_args', None, ABSENT, 'the default', DET),
    Row(rf'{_PARTS}_dataloader\.persistent_workers', ABSENT, True,
        "mmpretrain's own tools add it", CLS),
    Row(rf'{_PARTS}_dataloader\.collate_fn\.type', ABSENT, 'default_collate',
        "mmpretrain's own tools add it", CLS),
    Row(r'(val|test)_dataloader\.dataset\.test_mode', ABSENT, True,
        'no sample may be replaced by another while testing', CLS),
    # Loops and evaluation.
    Row(r'(val|test)_cfg\.type', str, 'mmrsfm.{}'.format,
        'our evaluation loops: an image that cannot be read is named'),
    Row(r'val_cfg\.type', 'ValLoop', ABSENT,
        'there is no data to validate on: MMEngine refused the published file', 'loveda/.*'),
    Row(r'val_(cfg|dataloader|evaluator)', ABSENT, None,
        'there is no data to validate on: MMEngine refused the published file', 'loveda/.*'),
    Row(r'test_evaluator\.type', 'DOTAMetric', 'mmrsfm.DOTASubmission', SUBMISSION,
        '(dotav1|dotav2)/.*'),
    Row(r'test_evaluator\.type', 'DOTAMetric', 'mmrsfm.FAIR1MSubmission', SUBMISSION,
        'fair1m20/.*'),
    Row(r'test_evaluator\.(format_only|merge_patches)', True, ABSENT, SUBMISSION,
        '(dotav1|dotav2|fair1m20)/.*'),
    Row(r'test_evaluator\.outfile_prefix', str, ABSENT, PATHS, '(dotav1|dotav2|fair1m20)/.*'),
    Row(r'test_evaluator\.type', 'IoUMetric', 'mmrsfm.LoveDASubmission', SUBMISSION, 'loveda/.*'),
    Row(r'test_evaluator\.format_only', True, ABSENT, SUBMISSION, 'loveda/.*'),
    Row(r'test_evaluator\.iou_metrics', ['mIoU'], ABSENT, SUBMISSION, 'loveda/.*'),
    Row(r'(val|test)_evaluator\.type', 'mmseg.IoUMetric', 'mmrsfm.CDMetric', CD_METRIC, CD),
    # Runtime.
    Row(r'default_hooks\.visualization\.draw', True, ABSENT,
        'no pictures of every validation; tools/test.py --show-dir draws them',
        'spacenetv1/.*|oscd/.*|loveda/(?!rvsa_b\\+mtp).*'),
    Row(r'default_hooks\.visualization\.interval', ABSENT, 1,
        'as in the five other published files', r'loveda/rvsa_b\+mtp'),
    Row(r'randomness\.seed', None, 0, 'a run can be repeated', CLS),
    Row(r'randomness\.(seed|deterministic)', ABSENT, ..., 'a run can be repeated',
        '(?!eurosat|resisc45).*'),
    Row(r'auto_scale_lr\.base_batch_size', 256, 64,
        'the batch of the published run, so that --auto-scale-lr keeps its learning rate', CLS),
    Row(r'auto_scale_lr\.base_batch_size', 16, 4,
        'the batch of the published run, so that --auto-scale-lr keeps its learning rate',
        '(xview|dior)/.*'),
    Row(r'auto_scale_lr\.base_batch_size', ABSENT, int,
        'the batch of the published run, so that --auto-scale-lr keeps its learning rate',
        '(?!eurosat|resisc45|xview|dior/).*'),
    Row(r'auto_scale_lr\.enable', ABSENT, False, 'as for the other detectors',
        '(dior-r|fair1m20|dotav1|dotav2)/.*'),
    Row(r'model_wrapper\..*', ..., ABSENT, 'MMEngine does not read it', DET),
    Row(r'find_unused_parameters', ABSENT, True,
        'RetinaNet begins at stride 8: the first map of the pyramid is not used',
        'xview/rvsa_.*'),
    Row(r'default_hooks\.checkpoint\.max_keep_ckpts', ABSENT, 3, RUNTIME),
    Row(r'default_hooks\.(pretrained_guard|class_count|batch_norm|non_finite)\.type', ABSENT, str,
        RUNTIME),
    Row(r'default_hooks\.preemption\.type', ABSENT, str, RUNTIME),
    Row(r'default_hooks\.training_pictures\.type', ABSENT, str, RUNTIME),
    Row(r'default_hooks\.timer\.type', 'IterTimerHook', 'mmrsfm.IterTimerHook', RUNTIME),
    Row(r'(visualizer\.)?vis_backends\[1\]\.type', ABSENT, 'mmrsfm.TensorboardVisBackend', RUNTIME),
    Row(r'vis_backends\[0\]\.type', 'LocalVisBackend', ABSENT, 'in the visualizer alone'),
    Row(r'log_processor\.window_size', ABSENT, 10, "MMEngine's default", f'{SEG}|{CLS}'),
    Row(r'custom_imports\..*', ABSENT, ..., 'registers mmrsfm'),
    # Helpers of the published files that ours do without.
    Row(r'dataset_type|data_root', str, ABSENT, 'a helper of the config itself', CD),
]  # fmt: skip


def published_backbone(published: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """The arguments of our backbone that mean what the published ones do."""
    given = dict(published)
    kind = given.pop('type')
    ours: dict[str, Any] = {
        'init_cfg.type': 'mmrsfm.Pretrained',
        'init_cfg.checkpoint': f'checkpoints/{given.pop("pretrained")}',
        'drop_path_rate': given.pop('drop_path_rate'),
        'out_indices': given.pop('out_indices'),
    }
    if kind == 'InternImage':
        ours['type'] = 'mmrsfm.InternImage'
        ours['with_cp'] = given.pop('with_cp')
        # By the arch: compared with its table. 'LN' is the default.
        ours['arch'] = {key: given.pop(key) for key in (
            'channels', 'depths', 'groups', 'layer_scale', 'offset_scale', 'post_norm',
        )}  # fmt: skip
        ours['defaults'] = {'norm_type': given.pop('norm_layer'), **given}
        return ours
    ours['type'] = 'mmrsfm.RVSAViT'
    ours['with_cp'] = given.pop('use_checkpoint')
    ours['img_size'] = given.pop('img_size')
    ours['patch_size'] = given.pop('patch_size')
    ours['arch'] = {
        'embed_dims': given.pop('embed_dim'),
        'num_layers': given.pop('depth'),
        'num_heads': given.pop('num_heads'),
        # Not set where it is the default of the published class.
        'interval': given.pop('interval', 3),
    }
    # What the name stands for depends on the folder of the code that it was in.
    assert (kind == 'RVSA_MTP_branches') == (scope in ('mmdet', 'mmrotate'))
    if kind == 'RVSA_MTP_branches':
        ours['full_rel_pos'] = False
    elif scope in ('mmpretrain', 'opencd'):
        ours['with_fpn'] = False
    assert given.pop('qk_scale') is None  # 1 / sqrt(channels of a head), the only one of ours
    ours['defaults'] = given
    return ours
