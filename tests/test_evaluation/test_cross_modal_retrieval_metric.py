# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""CrossModalRetrievalMetric: numbers by hand, chance, ties, missing modalities."""

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS


def evaluate(a, b, **options):
    metric = METRICS.build(dict(type='mmrsfm.CrossModalRetrievalMetric', **options))
    samples = [{'features': {'rgb': x, 'sar': y}} for x, y in zip(a, b, strict=True)]
    metric.process(None, samples[:2])
    metric.process(None, samples[2:])
    return metric.evaluate(len(samples))


def test_numbers_by_hand():
    gallery = torch.eye(4)
    # The right one comes first, second, third and last.
    query = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]])
    found = evaluate(query, gallery, centre=False, topk=(1, 2, 3))
    assert found['retrieval/rgb_to_sar/recall@1'] == 25
    assert found['retrieval/rgb_to_sar/recall@2'] == 50
    assert found['retrieval/rgb_to_sar/recall@3'] == 75
    assert found['retrieval/rgb_to_sar/median_rank'] == 2.5
    assert found['retrieval/rgb_to_sar/mean_rank'] == 2.5
    # The other way all queries are equally near to each: the middle of all.
    assert found['retrieval/sar_to_rgb/recall@1'] == 0
    assert found['retrieval/sar_to_rgb/median_rank'] == 2.5
    assert found['retrieval/chance/recall@2'] == 50
    assert found['retrieval/chance/median_rank'] == 2.5
    assert found['retrieval/places'] == 4


def test_perfect_and_constant_features():
    vectors = torch.randn(30, 8)
    turned = vectors @ torch.linalg.qr(torch.randn(8, 8))[0]
    perfect = evaluate(vectors, vectors * 3 + 100, chunk_size=7)
    assert perfect['retrieval/rgb_to_sar/recall@1'] == 100
    assert perfect['retrieval/sar_to_rgb/median_rank'] == 1
    # A common offset hides the places from the cosine.
    assert evaluate(vectors, vectors + 100, centre=False)['retrieval/rgb_to_sar/recall@1'] < 100
    blind = evaluate(torch.ones(30, 8), turned)
    for name in ('rgb_to_sar', 'sar_to_rgb'):
        assert blind[f'retrieval/{name}/median_rank'] == blind['retrieval/chance/median_rank']
        assert blind[f'retrieval/{name}/recall@5'] == 0


def test_random_features_are_chance():
    generator = torch.Generator().manual_seed(0)
    found = evaluate(*torch.randn(2, 600, 32, generator=generator), topk=(60,))
    assert found['retrieval/chance/recall@60'] == pytest.approx(10)
    assert found['retrieval/rgb_to_sar/recall@60'] == pytest.approx(10, abs=4)
    assert found['retrieval/rgb_to_sar/mean_rank'] == pytest.approx(300.5, abs=30)


def test_places_that_lack_a_modality_are_left_out():
    vectors = torch.randn(6, 4)
    other = vectors.clone()
    other[[1, 4]] = torch.nan
    found = evaluate(vectors, other)
    assert found['retrieval/places'] == 4
    assert found['retrieval/rgb_to_sar/recall@1'] == 100
    other[:5] = torch.nan
    with pytest.raises(ConfigError, match='1 of 6 samples have rgb and sar'):
        evaluate(vectors, other)


def test_three_modalities_are_compared_over_the_same_places():
    metric = METRICS.build(dict(type='mmrsfm.CrossModalRetrievalMetric', topk=(1,)))
    vectors = torch.randn(6, 4)
    samples = [{'features': dict.fromkeys(('rgb', 'sar', 'dem'), one)} for one in vectors]
    samples[2]['features'] = {**samples[2]['features'], 'rgb': torch.full((4,), torch.nan)}
    samples[5]['features'] = {**samples[5]['features'], 'dem': torch.full((4,), torch.nan)}
    metric.process(None, samples)
    found = metric.evaluate(6)
    assert found['retrieval/places'] == 4
    assert found['retrieval/chance/recall@1'] == 25
    recalls = {name: found[name] for name in found if '_to_' in name and 'recall' in name}
    assert len(recalls) == 6
    assert set(recalls.values()) == {100.0}


def test_what_cannot_be_compared():
    vectors = torch.randn(3, 4)
    with pytest.raises(ConfigError, match=r"asked for \['rgb', 'dem'\]"):
        evaluate(vectors, vectors, modalities=['rgb', 'dem'])
    with pytest.raises(ConfigError, match='the samples have no vectors'):
        evaluate(vectors, vectors, field='vectors')
    for options in ({'modalities': ['rgb']}, {'topk': ()}, {'topk': (0,)}):
        with pytest.raises(ConfigError):
            evaluate(vectors, vectors, **options)
