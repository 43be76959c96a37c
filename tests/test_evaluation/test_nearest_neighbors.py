# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Nearest neighbours in chunks, and their vote."""

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.nearest_neighbors import nearest_neighbors, vote


def brute_force(query, bank, k, metric):
    if metric == 'cosine':
        similarity = torch.nn.functional.cosine_similarity(query[:, None], bank[None], dim=2)
    else:
        similarity = -(query[:, None] - bank[None]).norm(dim=2)
    return similarity.topk(k, dim=1)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('chunk_size', [1, 3, 7, 100])
def test_chunks_do_not_change_the_result(metric, chunk_size):
    query, bank = torch.randn(4, 8) + 5, torch.randn(50, 8) + 5
    values, rows = nearest_neighbors(query, bank, 6, metric, chunk_size)
    expected = brute_force(query, bank, 6, metric)
    assert torch.equal(rows, expected.indices)
    torch.testing.assert_close(values, expected.values, atol=1e-5, rtol=1e-5)


def test_euclidean_distances_survive_a_large_offset():
    bank = torch.tensor([[1000.0, 1000.0], [1000.01, 1000.0], [1000.1, 1000.0]])
    _, rows = nearest_neighbors(torch.tensor([[1000.006, 1000.0]]), bank, 3, 'euclidean')
    assert rows.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize(('k', 'metric'), [(0, 'cosine'), (4, 'cosine'), (1, 'manhattan')])
def test_impossible_requests_are_refused(k, metric):
    with pytest.raises(ConfigError):
        nearest_neighbors(torch.randn(1, 2), torch.randn(3, 2), k, metric)


def test_a_plain_vote_counts():
    scores = vote(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[2, 1, 1]]), 4)
    assert scores.argmax().item() == 1
    assert scores[0].tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0], abs=1e-3)


def test_a_tie_goes_to_the_nearest():
    similarities = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    for labels in ([3, 1, 1, 3], [3, 1, 3, 1], [3, 3, 1, 1], [3, 0, 1, 2]):
        assert vote(similarities, torch.tensor([labels]), 4).argmax().item() == 3


def test_a_weighted_vote_follows_the_formula():
    similarities, labels = torch.tensor([[0.9, 0.8, 0.79]]), torch.tensor([[0, 1, 1]])
    weights = (similarities[0] / 0.07).exp()
    expected = torch.tensor([weights[0], weights[1] + weights[2]]) / weights.sum()
    scores = vote(similarities, labels, 2, 'similarity', 0.07)
    torch.testing.assert_close(scores[0], expected)
    assert scores.argmax().item() == 0
    assert vote(similarities, labels, 2).argmax().item() == 1


def test_low_temperatures_stay_finite():
    scores = vote(torch.tensor([[-300.0, -400.0]]), torch.tensor([[1, 0]]), 2, 'similarity', 0.01)
    assert scores.tolist() == [[0.0, 1.0]]


def test_unknown_weights_are_refused():
    with pytest.raises(ConfigError, match='distance'):
        vote(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), 1, 'distance')
