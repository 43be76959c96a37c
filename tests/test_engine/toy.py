# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A model, a dataset and a metric of a few lines, for the tests of the engine and the tools.

They draw from the global generators wherever a real one would: augmentation, dropout, validation.
"""

import json
import os
from pathlib import Path

import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import nn

from mmrsfm.errors import CorruptImageError

REPO = Path(__file__).resolve().parents[2]

# What a process that runs the toy config takes from other packages.
TOY_IMPORTS = ('mmengine.runner', 'mmcv.ops', 'torch.distributed.run', 'mmpretrain.models')


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, leave_unused=False, **kwargs):
        super().__init__(**kwargs)
        self.leave_unused = leave_unused
        self.net = nn.Sequential(
            nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
        )
        self.unused = nn.Linear(2, 2)  # DDP has to be told, or stops at the second step

    def forward(self, inputs, target=None, index=None, mode='tensor', padding=None):
        out = self.net(torch.stack(list(inputs)))[:, 0]
        if mode == 'loss':
            target = torch.stack(list(target))
            used = 0 if self.leave_unused else sum(p.sum() for p in self.unused.parameters()) * 0
            return {'loss': ((out - target) ** 2).mean() + used}
        if mode == 'predict':
            torch.rand(3)  # a validation that draws
            return [{'out': o, 'index': i} for o, i in zip(out, index, strict=True)]
        return out


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    """Augmented vectors; bad holds the indices of samples that cannot be read.

    What is read is noted in log: indices in a list, or a byte each in a file, of any process. With
    padding each sample carries so many bytes more.
    """

    METAINFO = {'classes': ('a',)}

    def __init__(self, size=10, bad=(), log=None, padding=0, **kwargs):
        self.size, self.bad, self.log, self.padding = size, set(bad), log, padding
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        return [
            {'index': i, 'img_path': f'tile_{i}.tif', 'width': 2 + i % 2, 'height': 3}
            for i in range(self.size)
        ]

    def prepare_data(self, idx):
        index = self.get_data_info(idx)['index']
        if isinstance(self.log, str):
            with open(self.log, 'ab', buffering=0) as file:
                file.write(b'.')
        elif self.log is not None:
            self.log.append(index)
        if index in self.bad:
            raise CorruptImageError('is truncated', path=f'tile_{index}.tif', band='B02')
        return {
            'inputs': torch.randn(8) * 0.1 + index,
            'target': torch.tensor(float(index)),
            'index': index,
            **({'padding': 'x' * self.padding} if self.padding else {}),
        }


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(int(sample['index']) for sample in data_samples)

    def compute_metrics(self, results):
        return {'acc': float(len(results)), 'distinct': float(len(set(results)))}


@HOOKS.register_module()
class WriteRanks(Hook):
    """Writes what each rank saw, and the weights at the end."""

    priority = 'LOWEST'

    def __init__(self, out):
        self.out = Path(out)
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.extend(int(i) for i in data_batch['index'])

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        result = {
            'seen': self.seen,
            'wrapper': type(runner.model).__name__,
            'find_unused': getattr(runner.model, 'find_unused_parameters', None),
            'weights': model.net[0].weight.flatten().tolist(),
        }
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f'rank{get_rank()}.json').write_text(json.dumps(result))


CONFIG = """
_base_ = '{repo}/configs/_base_/default_runtime.py'
custom_imports = dict(imports=['mmrsfm', 'tests.test_engine.toy'], allow_failed_imports=False)
default_scope = 'mmengine'
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='ToyDataset', size=10),
    sampler=dict(type='mmrsfm.EpochSampler'),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='ToyDataset', size=4),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = dict(type='ToyMetric')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01))
param_scheduler = dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=12)
train_cfg = dict(type='mmrsfm.EpochTrainLoop', max_epochs=3)
val_cfg = dict()
test_cfg = dict()
custom_hooks = []
"""


def write_config(folder, extra=''):
    """Writes the toy config, with lines added, and returns its path."""
    path = Path(folder) / 'toy.py'
    path.write_text(CONFIG.format(repo=REPO) + extra)
    return path


def write_ranked_config(folder):
    """A config of twelve samples whose ranks write what they did into folder / 'ranks'."""
    hook = f"custom_hooks = [dict(type='WriteRanks', out='{folder}/ranks')]\n"
    return write_config(folder, hook + "train_dataloader['dataset']['size'] = 12\n")


def read_ranks(folder):
    """What two ranks wrote."""
    return [json.loads((folder / f'ranks/rank{rank}.json').read_text()) for rank in range(2)]


def toy_environment():
    """The environment for processes that run the toy config on the CPU."""
    environ = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(('SLURM_', 'OMPI_', 'PMI', 'MASTER_'))
        and key not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'PORT')
    }
    environ['PYTHONPATH'] = os.pathsep.join(
        [str(REPO), *filter(None, [os.environ.get('PYTHONPATH')])]
    )
    environ.update(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
    return environ
