# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What every backbone of the library does: its tests subclass :class:`BackboneContract`.

``class TestMyBackbone(BackboneContract)`` with a ``config``, its ``strides`` and ``channels`` runs
all of it. Idea: the one abstract test of lightly, the contract tests of timm.
"""

import copy
import math
import pickle

import pytest
import torch

from mmrsfm.checkpoints import describe_model
from mmrsfm.registry import MODELS


class BackboneContract:
    # A tiny backbone that returns feature maps, one for each stride.
    config: dict
    strides: tuple
    channels: tuple
    # What makes it freeze its leading stages; None where it offers no such thing.
    frozen: dict | None = {'frozen_stages': 1}
    # What makes it recompute activations; None where it offers no such thing.
    checkpointed: dict | None = {'with_cp': True}
    sizes = ((64, 64), (32, 96), (65, 50), (37, 80))
    # Names of parameters that get no gradient by design.
    without_gradient: tuple = ()

    def build(self, **changes):
        torch.manual_seed(0)
        backbone = MODELS.build({**self.config, **changes})
        backbone.init_weights()
        return backbone

    def images(self, size=(64, 64), batch=2):
        torch.manual_seed(1)
        return torch.randn(batch, self.config.get('in_channels', 3), *size)

    @pytest.mark.parametrize('size', [0, 1, 2, 3])
    def test_any_size_and_aspect(self, size):
        height, width = self.sizes[size]
        backbone = self.build().eval()
        with torch.no_grad():
            maps = backbone(self.images((height, width), batch=1))
        assert isinstance(maps, tuple)
        assert [tuple(m.shape) for m in maps] == [
            (1, channels, math.ceil(height / stride), math.ceil(width / stride))
            for channels, stride in zip(self.channels, self.strides, strict=True)
        ]
        assert all(m.isfinite().all() for m in maps)
        # RoIAlign of mmcv reads other memory formats as if they were this one.
        assert all(m.is_contiguous() for m in maps)

    @pytest.mark.parametrize('in_channels', [1, 4, 13])
    def test_any_number_of_bands(self, in_channels):
        backbone = self.build(in_channels=in_channels).eval()
        maps = backbone(torch.randn(1, in_channels, 64, 64))
        assert [m.shape[1] for m in maps] == list(self.channels)

    def test_train_and_eval_return_the_module(self):
        backbone = self.build()
        assert backbone.train() is backbone
        assert backbone.training
        assert backbone.eval() is backbone
        assert not any(module.training for module in backbone.modules())

    def test_eval_is_reproducible_and_free_of_the_batch(self):
        backbone, images = self.build().eval(), self.images(batch=3)
        with torch.no_grad():
            together, again, alone = backbone(images), backbone(images), backbone(images[1:2])
        for a, b, c in zip(together, again, alone, strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a[1:2], c, rtol=1e-4, atol=1e-5)

    def test_state_dict_round_trip(self):
        source = self.build().eval()
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        target = MODELS.build(self.config).eval()
        result = target.load_state_dict(source.state_dict(), strict=True)
        assert not result.missing_keys
        assert not result.unexpected_keys
        size = self.sizes[-1]
        with torch.no_grad():
            for a, b in zip(source(self.images(size)), target(self.images(size)), strict=True):
                assert torch.equal(a, b)

    def test_survives_copy_and_pickle(self):
        backbone, images = self.build().eval(), self.images(self.sizes[1])
        with torch.no_grad():
            expected = backbone(images)
            for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
                for a, b in zip(expected, twin(images), strict=True):
                    assert torch.equal(a, b)

    def test_every_trainable_parameter_gets_a_gradient(self):
        backbone = self.build().train()
        sum(m.square().sum() for m in backbone(self.images(self.sizes[1]))).backward()
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad and name not in self.without_gradient:
                assert parameter.grad is not None, f'{name} gets no gradient'
                assert parameter.grad.isfinite().all(), f'{name} gets a gradient that is not finite'

    def test_frozen_stages(self):
        if self.frozen is None:
            pytest.skip('the backbone freezes nothing')
        backbone = self.build(**self.frozen).train()
        frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
        always = {n for n, p in self.build().named_parameters() if not p.requires_grad}
        assert frozen - always
        assert any(p.requires_grad for p in backbone.parameters())
        sum(m.square().sum() for m in backbone(self.images())).backward()
        gradients = {n for n, p in backbone.named_parameters() if p.grad is not None}
        assert not gradients & frozen
        # train() must not wake them up.
        for name, module in backbone.named_modules():
            own = [f'{name}.{n}' for n, _ in module.named_parameters(recurse=False)]
            if own and set(own) <= frozen - always:
                assert not module.training, f'{name} is frozen, and in training mode'

    def test_checkpointing_changes_no_number(self):
        if self.checkpointed is None:
            pytest.skip('the backbone does not recompute activations')
        plain, saving = self.build().train(), self.build(**self.checkpointed).train()
        saving.load_state_dict(plain.state_dict())
        images = self.images()
        for backbone in (plain, saving):
            sum(m.square().mean() for m in backbone(images)).backward()
        for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
            if a.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6, msg=name)

    def test_init_cfg_of_ours_is_what_remains(self, tmp_path):
        """MMEngine's init_weights must not overwrite what mmrsfm.Pretrained has loaded."""
        source = self.build()
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.normal_(std=0.02)
        checkpoint = dict(meta=describe_model(source), state_dict=source.state_dict())
        torch.save(checkpoint, tmp_path / 'weights.pth')
        target = self.build(
            init_cfg=dict(type='mmrsfm.Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
        )
        loaded = target.state_dict()
        for name, value in source.state_dict().items():
            assert torch.equal(value, loaded[name]), f'{name} was overwritten'

    def test_layer_depth_for_layer_decay(self):
        backbone = self.build()
        if not hasattr(backbone, 'get_layer_depth'):
            pytest.skip('the backbone has no get_layer_depth')
        names = [f'backbone.{name}' for name in backbone.state_dict()]
        found = [backbone.get_layer_depth(name, 'backbone.') for name in names]
        depths, totals = zip(*found, strict=True)
        assert len(set(totals)) == 1
        assert min(depths) == 0
        assert max(depths) <= totals[0] - 1
        head, _ = backbone.get_layer_depth('head.fc.weight', 'backbone.')
        assert head == totals[0] - 1

    def test_mixed_precision(self):
        backbone = self.build().eval()
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            maps = backbone(self.images(batch=1))
        assert all(m.isfinite().all() for m in maps)
