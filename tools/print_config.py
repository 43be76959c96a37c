#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Prints a config with its bases merged and its overrides applied."""

import argparse
import sys

from mmrsfm.engine import command_line, run_config


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Print a config as a run would see it.')
    command_line.add_config_arguments(parser)
    parser.add_argument('--save-path', help='write it to this .py, .yml or .json file as well')
    return parser


def main(args: argparse.Namespace) -> None:
    cfg = run_config.load_config(args.config, args.cfg_options)
    print(cfg.pretty_text)
    if args.save_path is not None:
        cfg.dump(args.save_path)


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
