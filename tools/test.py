#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tests any model of any task: the config decides."""

import argparse
import sys

import torch
from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.model import is_model_wrapper

from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import ConfigError
from mmrsfm.utils.host_memory import keep_freed_memory


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Test what a config describes.')
    command_line.add_config_arguments(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='the trained weights; without it, what init_cfg of the config gives is tested',
    )
    parser.add_argument('--work-dir', help='for logs and metrics [work_dirs/CONFIG_NAME]')
    parser.add_argument(
        '--out',
        help='write the predictions: FILE.pkl, or a folder for what the metric of the test writes: '
        'submissions to a server, label images, change maps',
    )
    parser.add_argument('--show-dir', help='draw the predictions into this folder')
    parser.add_argument('--show', action='store_true', help='show the predictions in windows')
    parser.add_argument('--wait-time', type=float, default=2.0, help='seconds per window [2]')
    parser.add_argument('--interval', type=int, default=1, help='draw every n-th sample [1]')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    command_line.add_launcher_arguments(parser)
    return parser


def check_out(cfg: Config, out: str) -> bool:
    """Returns whether predictions go to a pickle; a folder is handed to the metric that writes."""
    if out.endswith(('.pkl', '.pickle')):
        return True
    run_config.set_output_folder(cfg, out)
    return False


def dump_metric(cfg: Config, out: str) -> DumpResults:
    if cfg.get('default_scope') in ('mmdet', 'mmrotate'):
        from mmdet.evaluation import DumpDetResults  # it compresses masks

        return DumpDetResults(out_file_path=out)
    return DumpResults(out_file_path=out)


def main(args: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        keep_freed_memory()
    cfg = run_config.load_config(args.config, args.cfg_options)
    if args.checkpoint is not None:
        run_config.check_checkpoint(args.checkpoint, 'CHECKPOINT')
    for name in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(name) is None:
            raise ConfigError(f'{args.config} has no {name}: there is nothing to test')
    run_config.prepare_work_dir(cfg, args.config, args.work_dir)
    run_config.set_dataloader_defaults(cfg)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.show or args.show_dir:
        run_config.enable_visualization(
            cfg, args.show, args.show_dir, args.wait_time, args.interval
        )
    if args.tta:
        run_config.enable_tta(cfg)
    pickled = args.out is not None and check_out(cfg, args.out)
    command_line.start_distributed(cfg, args)
    runner = run_config.build_runner(cfg)
    if args.checkpoint is None:
        runner.logger.warning('No CHECKPOINT: the weights are what init_cfg gives.')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.init_weights()
    if pickled:
        runner.test_evaluator.metrics.append(dump_metric(cfg, args.out))
    runner.test()


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
