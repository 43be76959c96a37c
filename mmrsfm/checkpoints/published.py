# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Digests that authors publish beside the names of their files.

A file that is read under one of these names must be that file: a damaged download would otherwise
load, and be noticed by its results.
"""

from __future__ import annotations

# acaglayan/SAR-W-MixMAE, README.md, section "Checkpoints".
SHA256 = {
    'benv1_pretrain_checkpoint_64.pth': (
        'b4f385f96a1eef96c8b32768b57cee79060fe3d920c7273e2c70e43cc1c90700'
    ),
    'benv1_finetune_checkpoint_best.pth': (
        '3778df30224903644d772d151a086d4a1bb006ab61c55ac6534ecb00fe3ae083'
    ),
    'benv2_pretrain_checkpoint_64.pth': (
        '13ab3855a2faee9dc1ca0fb50ba483cc4e0d735b9fc8d1f03e75764c356d0b93'
    ),
    'benv2_finetune_checkpoint_best.pth': (
        '9592399dcc5f34f608a4b558f897a919d4dd4feb06fc975c108e8f4191689c18'
    ),
    'sen12_finetune_checkpoint_best.pth': (
        '33d06401a433191233322a24c551145e53622b6702b4fa9d6d0178cd2392c541'
    ),
}
