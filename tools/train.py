#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Trains any model of any task: the config decides."""

import argparse
import sys

import torch

from mmrsfm.engine import command_line, run_config
from mmrsfm.utils.host_memory import keep_freed_memory


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Train, or pretrain, what a config describes.')
    command_line.add_config_arguments(parser)
    parser.add_argument('--work-dir', help='for logs and checkpoints [work_dirs/CONFIG_NAME]')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|PATH',
        help='continue from the last checkpoint of the work folder, or from a file',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size over all devices',
    )
    command_line.add_launcher_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        keep_freed_memory()
    cfg = run_config.load_config(args.config, args.cfg_options)
    run_config.prepare_work_dir(cfg, args.config, args.work_dir)
    run_config.set_dataloader_defaults(cfg)
    if args.amp:
        run_config.enable_amp(cfg)
    run_config.adapt_amp_to_device(cfg)
    if args.auto_scale_lr:
        run_config.enable_auto_scale_lr(cfg)
    command_line.start_distributed(cfg, args)
    run_config.resolve_resume(cfg, args.resume)
    if cfg.get('load_from'):
        run_config.check_checkpoint(cfg.load_from, 'load_from')
    run_config.build_runner(cfg).train()


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
