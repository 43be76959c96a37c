# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From a command line to a config that a Runner takes, for every task library."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import is_cuda_available
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmengine.registry import HOOKS, METRICS, MODELS, RUNNERS
from mmengine.runner import Runner

from mmrsfm.checkpoints.integrity import check_integrity
from mmrsfm.engine.checkpoint_folder import find_last_checkpoint
from mmrsfm.errors import CheckpointError, ConfigError, MissingDependencyError, MMRSFMError

# The visualisation hook and the visualizer of a task library, for configs that name none.
_DRAWERS = {
    'mmpretrain': ('mmrsfm.VisualizationHook', 'mmpretrain.UniversalVisualizer'),
    'mmseg': ('mmrsfm.VisualizationHook', 'mmseg.SegLocalVisualizer'),
    'mmdet': ('mmdet.DetVisualizationHook', 'mmdet.DetLocalVisualizer'),
    'mmrotate': ('mmdet.DetVisualizationHook', 'mmrotate.RotLocalVisualizer'),
    'opencd': ('opencd.CDVisualizationHook', 'opencd.CDLocalVisualizer'),
}
_RECONSTRUCTIONS = 'mmrsfm.ReconstructionVisualizer'  # of pretraining algorithms


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config of mmrsfm or of any OpenMMLab library.

    Args:
        path: The config file.
        options: Values that override it, by dotted keys.

    Returns:
        The config; the task library that its ``default_scope`` names is registered.

    Raises:
        ConfigError: If the file is missing or cannot be read.
        MissingDependencyError: If the task library is not installed.
    """
    if not Path(path).is_file():
        raise ConfigError(f'the config {path} does not exist (current folder: {Path.cwd()})')
    try:
        cfg = Config.fromfile(str(path))
    except MMRSFMError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f'the config {path} imports what is missing: {error}'
        ) from error
    except Exception as error:
        raise ConfigError(f'the config {path} cannot be read: {error}') from error
    if options:
        try:
            cfg.merge_from_dict(dict(options))
        except (KeyError, TypeError, IndexError, AssertionError) as error:
            raise ConfigError(f'--cfg-options do not fit {path}: {error}') from error
    register_scope(cfg.get('default_scope'))
    return cfg


def register_scope(scope: str | None) -> None:
    """Makes the registries of a task library known.

    Args:
        scope: For example ``'mmdet'``.

    Raises:
        MissingDependencyError: If there is no such library, and nobody registered such a scope.
    """
    if scope is None or scope in ('mmengine', 'mmrsfm'):
        return
    try:
        importlib.import_module(f'{scope}.registry')
    except ImportError as error:
        if scope in MODELS.children:
            return  # for example opencd: registered by a package of another name
        raise MissingDependencyError(
            f"the config has default_scope='{scope}', which cannot be imported: {error}"
        ) from error
    if scope == 'mmrotate':
        # Its registries do not all say where their classes are.
        for library in ('mmdet', 'mmrotate'):
            utils = importlib.import_module(f'{library}.utils')
            utils.register_all_modules(init_default_scope=False)


def prepare_work_dir(cfg: Config, config_path: str | Path, work_dir: str | None) -> None:
    """Settles ``cfg.work_dir`` (command line, config, ``./work_dirs/<config name>``) and makes it.

    Args:
        cfg: The config, changed in place.
        config_path: Where it was read from.
        work_dir: From the command line.

    Raises:
        ConfigError: If the folder cannot be made or written to.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(config_path).stem)
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'the work folder {cfg.work_dir} cannot be made: {error}') from error
    if not os.access(cfg.work_dir, os.W_OK | os.X_OK):
        raise ConfigError(f'the work folder {cfg.work_dir} is not writable')


def set_dataloader_defaults(cfg: Config) -> None:
    """Gives the data loaders of mmpretrain configs the defaults that mmpretrain's own tools give.

    Its configs are written for them: batches are collated, workers persist.

    Args:
        cfg: The config, changed in place.
    """
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not isinstance(loader, MutableMapping):
            continue
        loader.setdefault('pin_memory', is_cuda_available())
        loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
        loader.setdefault('collate_fn', dict(type='default_collate'))


def enable_amp(cfg: Config) -> None:
    """Switches to mixed precision: fp16 with loss scaling on a GPU, bfloat16 on a CPU.

    Args:
        cfg: The config, changed in place.

    Raises:
        ConfigError: If the optimizer wrapper is one of another kind.
    """
    wrapper = cfg.get('optim_wrapper') or ConfigDict()
    kind = wrapper.get('type', 'OptimWrapper')
    if kind in ('AmpOptimWrapper', 'mmrsfm.BF16OptimWrapper') and is_cuda_available():
        return
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'mmrsfm.BF16OptimWrapper'):
        raise ConfigError(
            f"--amp replaces optim_wrapper.type='OptimWrapper', this config has {kind!r}: set the "
            'precision in the config instead'
        )
    wrapper['type'] = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')
    cfg.optim_wrapper = wrapper
    adapt_amp_to_device(cfg)


def adapt_amp_to_device(cfg: Config) -> None:
    """Gives a config with mixed precision a wrapper that runs without a GPU, and says so.

    Args:
        cfg: The config, changed in place.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') != 'AmpOptimWrapper' or is_cuda_available():
        return
    for name in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(name, None)
    wrapper['type'] = 'mmrsfm.BF16OptimWrapper'
    print_log(
        'Mixed precision without a GPU: bfloat16 autocast on the CPU.', logger='current', level=30
    )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scales the learning rate with the batch size, as the config provides for.

    Args:
        cfg: The config, changed in place.

    Raises:
        ConfigError: If the config does not say for which batch size it was made.
    """
    if not cfg.get('auto_scale_lr') or 'base_batch_size' not in cfg.auto_scale_lr:
        raise ConfigError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config: the '
            'batch size, over all devices, that its learning rate was chosen for'
        )
    cfg.auto_scale_lr.enable = True


def resolve_resume(cfg: Config, resume: str | None) -> None:
    """Finds the checkpoint to resume from, and sets ``resume`` and ``load_from``. A collective.

    The first rank looks, and reads the file through; the others take what it found.

    Args:
        cfg: The config with its ``work_dir``, changed in place.
        resume: ``None`` leaves the config as it is, ``'auto'`` takes the newest valid checkpoint
            of the work folder and starts a new run where there is none, anything else is a path.

    Raises:
        ConfigError: If the path does not exist, or checkpoints should be there and are not.
        CheckpointError: If the file, or every checkpoint of the work folder, is damaged.
    """
    if resume is None and cfg.get('resume') and not cfg.get('load_from'):
        resume = 'auto'
    if resume is None:
        return
    outcome: list[Any] = [None]
    if is_main_process():
        try:
            outcome = [_file_to_resume(cfg.work_dir, resume)]
        except Exception as error:
            outcome = [error]
    broadcast_object_list(outcome, src=0)
    (found,) = outcome
    if isinstance(found, Exception):
        raise found
    if found is None:
        cfg.resume = False
        print_log(
            f'--resume auto: no checkpoint in {cfg.work_dir}; a new run starts.', logger='current'
        )
        return
    cfg.resume, cfg.load_from = True, found
    if resume == 'auto':
        print_log(f'--resume auto: continues from {found}.', logger='current')


def _file_to_resume(work_dir: str, resume: str) -> str | None:
    """The file that ``--resume`` means, after a look at its bytes."""
    if resume == 'auto':
        found = find_last_checkpoint(work_dir)
        return None if found is None else str(found)
    check_checkpoint(resume, '--resume')
    if '://' not in resume:
        try:
            check_integrity(resume)
        except CheckpointError as error:
            raise type(error)(
                f'--resume: {error}. --resume auto takes the newest sound one of a work folder'
            ) from error
    return resume


def check_checkpoint(path: str, argument: str) -> None:
    """Raises a ConfigError if a checkpoint given as a local path does not exist."""
    if '://' not in path and not Path(path).is_file():
        raise ConfigError(f'{argument}: the checkpoint {path} does not exist')


def enable_tta(cfg: Config) -> None:
    """Wraps the model for test-time augmentation, by the config's own tta_model and tta_pipeline.

    Args:
        cfg: The config, changed in place.

    Raises:
        ConfigError: If the config has none.
    """
    missing = [name for name in ('tta_model', 'tta_pipeline') if not cfg.get(name)]
    if missing:
        raise ConfigError(
            f'--tta: the config has no {" and no ".join(missing)}. Add tta_model (e.g. '
            "dict(type='mmpretrain.AverageClsScoreTTA'), dict(type='mmseg.SegTTAModel')) and "
            'tta_pipeline, which ends in a TestTimeAug.'
        )
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def enable_visualization(
    cfg: Config, show: bool, show_dir: str | None, wait_time: float, interval: int
) -> None:
    """Makes the task library's visualisation hook draw predictions during the test.

    Args:
        cfg: The config, changed in place.
        show: Whether to open windows.
        show_dir: Folder for the pictures.
        wait_time: Seconds for which a window stays.
        interval: Draw every so many samples.

    Raises:
        ConfigError: If neither the config nor the task library names a hook that draws.
    """
    hook_type, visualizer_type = _DRAWERS.get(cfg.get('default_scope'), (None, None))
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    if not hooks.get('visualization'):
        if hook_type is None:
            raise ConfigError(
                '--show, --show-dir: the config needs a hook that draws, e.g. default_hooks.'
                "visualization=dict(type='mmpretrain.VisualizationHook')"
            )
        hooks.visualization = dict(type=hook_type)
    given = cfg.get('visualizer') or {}
    if given.get('type', 'Visualizer') == 'Visualizer':  # which draws no predictions
        drawer = _RECONSTRUCTIONS if _reconstructs(cfg) else visualizer_type
        cfg.visualizer = {**given, 'type': drawer or 'Visualizer', 'name': 'visualizer'}
    hook = hooks.visualization
    with HOOKS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        cls = registry.get(hook['type']) if isinstance(hook['type'], str) else hook['type']
    known = set(inspect.signature(cls.__init__).parameters)
    wanted = {
        'draw': True,
        'enable': True,
        'show': show,
        'interval': interval,
        'test_interval': interval,
    }
    hook.update({key: value for key, value in wanted.items() if key in known})
    if show:
        hook['wait_time'] = wait_time
    if show_dir is not None:
        show_dir = str(Path(show_dir).resolve())
        target = next((key for key in ('out_dir', 'test_out_dir') if key in known), None)
        if target is not None:
            hook[target] = show_dir
        else:
            cfg.visualizer.save_dir = show_dir
            cfg.visualizer.setdefault('vis_backends', [dict(type='LocalVisBackend')])


def _reconstructs(cfg: Config) -> bool:
    """Whether the model is a pretraining algorithm whose predictions are reconstructions."""
    model = cfg.get('model') or {}
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = model.get('type')
        return hasattr(registry.get(kind) if isinstance(kind, str) else kind, 'reconstruct')


def set_output_folder(cfg: Config, out: str) -> None:
    """Hands a folder to the metric of the test that writes files.

    Args:
        cfg: The config, changed in place.
        out: The folder: for the ``out_dir`` of a writer of submissions or, where there is none, for
            the ``output_dir`` of mmseg's metrics.

    Raises:
        ConfigError: If no metric takes a folder, or more than one writes a submission.
    """
    evaluator = cfg.test_evaluator
    if isinstance(evaluator, MutableMapping) and 'metrics' in evaluator:
        evaluator = evaluator['metrics']
    metrics = [evaluator] if isinstance(evaluator, MutableMapping) else list(evaluator)
    takers: dict[str, list[Any]] = {'out_dir': [], 'output_dir': []}
    for metric in metrics:
        kind = metric['type']
        with METRICS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            cls = registry.get(kind) if isinstance(kind, str) else kind
        # A subclass may hand its **kwargs on to the class that names them.
        known = {
            name
            for base in inspect.getmro(cls or object)
            if '__init__' in vars(base)
            for name in inspect.signature(vars(base)['__init__']).parameters
        }
        for name in known & set(takers):
            takers[name].append(metric)
    if len(takers['out_dir']) > 1:
        writers = [str(metric['type']) for metric in takers['out_dir']]
        raise ConfigError(
            f'--out {out}: {", ".join(writers)} would write to it: set out_dir of each'
        )
    if not takers['out_dir'] and not takers['output_dir']:
        raise ConfigError(f'--out {out}: must end in .pkl: no metric of this test writes a folder')
    for metric in takers['out_dir']:
        metric['out_dir'] = out
    for metric in [] if takers['out_dir'] else takers['output_dir']:
        metric.update(output_dir=out, keep_results=True)


def build_runner(cfg: Config) -> Runner:
    """Builds the Runner that the config asks for.

    With ``randomness=dict(deterministic=True)`` cuBLAS gets the workspace without which it is not.

    Args:
        cfg: The config.
    """
    if (cfg.get('randomness') or {}).get('deterministic'):
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
