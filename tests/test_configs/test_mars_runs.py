# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every config of MaRS, made small: two steps and a test, on data in the true form."""

import math
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from rasterio.errors import NotGeoreferencedWarning

from mmrsfm.engine.run_config import build_runner
from tests.formats import MAKERS
from tests.test_configs.tiny_mars import CONFIGS, DATA, data_folders, released_file, tiny_config

pytestmark = pytest.mark.filterwarnings('ignore', category=NotGeoreferencedWarning)
FILES = sorted(CONFIGS.rglob('*.py'))
NAMES = [str(file.relative_to(CONFIGS).with_suffix('')) for file in FILES]
# Large models are built; what they share with base is run with base. Demonstrations have tests of
# their own (tests/test_tools).
RUNS = [name for name in NAMES if 'large' not in name and not name.startswith('demo')]


class Witness(Hook):
    """What the training did."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.losses = []
        self.idle = set()

    def before_train(self, runner):
        for name, weight in runner.model.named_parameters():
            if weight.requires_grad:
                self.idle.add(name)
                weight.register_post_accumulate_grad_hook(
                    lambda _, name=name: self.idle.discard(name)
                )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({name: float(value) for name, value in outputs.items()})


def make_data(cfg: Config, root: Path) -> Path:
    (folder,) = data_folders(cfg.train_dataloader.to_dict())
    name, options = DATA[folder]
    return MAKERS[name](root, **options)


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp('released')
    return {count: released_file(folder / f'{count}.pth', count) for count in (1, 3)}


@pytest.mark.parametrize('name', RUNS)
def test_trains_two_steps_and_tests(name, released, tmp_path):
    file = CONFIGS / f'{name}.py'
    data = make_data(Config.fromfile(file), tmp_path / 'data')
    cfg = tiny_config(file, data, released)
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    witness = Witness()
    runner.register_hook(witness)
    runner.train()
    assert len(witness.losses) == 2
    assert all(math.isfinite(value) for step in witness.losses for value in step.values())
    # DDP stops at a parameter without a gradient, unless it is told to look for them.
    assert bool(witness.idle) == bool(cfg.get('find_unused_parameters')), sorted(witness.idle)
    if cfg.get('test_dataloader'):
        metrics = runner.test()
        assert metrics
        assert all(np.isscalar(value) for value in metrics.values()), metrics
