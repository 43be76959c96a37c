# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn

from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.models.classifiers import PairClassifier


class Means(nn.Module):
    """Mean and standard deviation of each channel of a tile, as maps of one pixel."""

    def forward(self, x):
        return (torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)[..., None, None],)


def build(**options):
    head = dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=4)
    return PairClassifier(Means(), head=head, **options)


def test_tiles_are_cut_row_by_row():
    images = torch.arange(2 * 2 * 5 * 6.0).reshape(2, 2, 5, 6)
    tiles = build(tile_size=2).tiles(images)
    assert tiles.shape == (2, 6, 2, 2, 2)
    assert torch.equal(tiles[:, 1], images[:, :, :2, 2:4])
    assert torch.equal(tiles[:, 3], images[:, :, 2:4, :2])
    legacy = build(tile_size=2, legacy_tiling=True).tiles(images)
    # Tile 1 has tiles 2 and 3 of the first polarisation; tile 3 the first two of the second.
    assert torch.equal(legacy[:, 1], tiles[:, 2:4, 0])
    assert torch.equal(legacy[:, 3], tiles[:, 0:2, 1])
    # With one tile there is no difference.
    square = images[..., :5, :5]
    whole = [build(tile_size=5, legacy_tiling=legacy).tiles(square) for legacy in (True, False)]
    assert torch.equal(*whole)
    assert torch.equal(build(tile_size=None).tiles(images), images[:, None])


def test_difference_of_features_and_its_reductions():
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 2, 8, 8)
    for reduction in ('avg', 'max'):
        model = build(tile_size=4, tile_reduction=reduction)
        (feature,) = model.extract_feat([first, second])
        assert feature.shape == (3, 4)
        assert torch.equal(feature, model.extract_feat([second, first])[0])
        assert not model.extract_feat([first, first])[0].any()
        tile = (first[..., :4, :4].mean((2, 3)) - second[..., :4, :4].mean((2, 3))).abs()
        if reduction == 'max':
            assert (feature[:, :2] >= tile - 1e-6).all()
    assert torch.equal(model.extract_feat([first, second], 'pre_logits'), feature)


def test_learns_and_predicts():
    torch.manual_seed(0)
    model = build(
        tile_size=4,
        data_preprocessor=dict(
            type='mmrsfm.MultiBandDataPreprocessor', mean=[1.0, 2.0], std=[2.0, 4.0],
            band_names=['VH', 'VV'],
        ),
    )  # fmt: skip
    before = torch.randn(8, 2, 8, 8)
    label = torch.arange(8) % 2
    after = before + 6 * label[:, None, None, None]
    samples = [DataSample().set_gt_label(int(one)) for one in label]
    samples[0].set_field(('VH', 'VV'), 'band_names', field_type='metainfo')
    batch = dict(inputs=[before, after], data_samples=samples)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(40):
        data = model.data_preprocessor(batch, True)
        loss = model(**data, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    found = model.test_step(batch)
    assert [int(one.pred_label) for one in found] == label.tolist()
    assert torch.allclose(data['inputs'][0], (before - torch.tensor([1.0, 2])[:, None, None])
                          / torch.tensor([2.0, 4])[:, None, None])  # fmt: skip


def test_failures():
    with pytest.raises(ConfigError, match='tile_reduction is one of'):
        build(tile_reduction='mean')
    with pytest.raises(ConfigError, match='at least 1'):
        build(tile_size=0)
    model = build(tile_size=16)
    with pytest.raises(ImageSizeError, match='hold no tile of 16'):
        model([torch.zeros(1, 2, 8, 16), torch.zeros(1, 2, 8, 16)])
    for inputs in (torch.zeros(2, 2, 16, 16), [torch.zeros(1, 2, 16, 16)],
                   [torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 32)]):  # fmt: skip
        with pytest.raises(ConfigError, match='two batches of images'):
            model(inputs)
    with pytest.raises(ConfigError, match='stage is'):
        model.extract_feat([torch.zeros(1, 2, 16, 16)] * 2, 'backbone')
