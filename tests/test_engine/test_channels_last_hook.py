# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from types import SimpleNamespace

import torch
from mmengine.model import BaseModel

from mmrsfm.engine import ChannelsLastHook
from mmrsfm.registry import MODELS


class Features(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = MODELS.build(
            dict(
                type='mmrsfm.ConvNeXtV2',
                arch=dict(depths=(1, 1, 1, 1), channels=(8, 8, 16, 16)),
                in_channels=3,
                stem='original',
                patch_size=32,
                out_indices=(0, 3),
            )
        )

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.formats = [
            one.is_contiguous(memory_format=torch.channels_last) for one in inputs.values()
        ]
        return [self.backbone(one) for one in inputs.values()]


def test_numbers_stay_and_formats_change():
    torch.manual_seed(0)
    model = Features().eval()
    images = {'optical': torch.randn(2, 3, 64, 64), 'sar': torch.randn(2, 3, 32, 32)}
    expected = model(images)
    names = list(model.state_dict())
    hook = ChannelsLastHook()
    runner = SimpleNamespace(model=model)
    hook.before_run(runner)
    found = model(images)
    assert model.formats == [True, True]
    weights = [one for one in model.parameters() if one.dim() == 4]
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names
    # A checkpoint of the usual format loads, and keeps this one.
    model.load_state_dict({name: one.contiguous() for name, one in model.state_dict().items()})
    assert weights[-1].is_contiguous(memory_format=torch.channels_last)
    hook.after_run(runner)
    model(images)
    assert model.formats == [False, False]
