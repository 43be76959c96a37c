# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""fp16 with loss scaling, which MMEngine's wrapper has on GPUs only."""

import pytest
import torch

from mmrsfm.checkpoints import read_checkpoint
from tests.test_engine.test_loops import EPOCHS, train

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a GPU: run on a machine with CUDA'
)


def test_the_loss_scale_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    options = EPOCHS | {
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.loss_scale': 'dynamic',
    }
    whole, trace = train(tmp_path, tmp_path / 'whole', **options)
    path = str(tmp_path / 'whole/epoch_2.pth')
    assert read_checkpoint(path)['optimizer']['loss_scaler']['scale'] > 1
    resumed, rest = train(tmp_path, tmp_path / 'rest', **options, load_from=path, resume=True)
    torch.testing.assert_close(rest.losses, trace.losses[-len(rest.losses) :], rtol=1e-3, atol=1e-3)
    scale = resumed.optim_wrapper.loss_scaler.get_scale()
    assert scale == whole.optim_wrapper.loss_scaler.get_scale()
    assert all(bool(one.isfinite().all()) for one in resumed.model.parameters())
