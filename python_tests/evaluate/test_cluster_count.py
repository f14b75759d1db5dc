"""How many clusters: right where they are apart, with neighbours and a curve, and refused where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from deepclust_ext.evaluate import count_clusters
from deepclust_ext.evaluate.cluster_count import _gaps, _tree


def gaussians(k, n=600, d=16, seed=0, apart=2.5):
    rng = np.random.default_rng(seed)
    return (apart * rng.normal(size=(k, d))[np.arange(n) % k] + rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("k", [2, 3, 7, 15])
def test_gaussians_are_counted(k):
    found = count_clusters(gaussians(k, seed=k))
    assert found.n_clusters == found.candidates[0].n_clusters == k
    assert found.candidates[0].stability > 0.95
    assert found.n_trees == 6
    assert found.candidates[0].n_largest == 6


def test_a_number_never_stands_alone():
    found = count_clusters(load_digits().data)
    numbers = [each.n_clusters for each in found.candidates]
    assert len(numbers) == len(set(numbers)) == 5
    assert 10 in numbers
    assert [n for n, _, _ in found.curve] == list(range(2, len(found.curve) + 2))
    assert 20 < len(found.curve) < 50
    gaps = {n: gap for n, _, gap in found.curve}
    assert all(gaps[each.n_clusters] == pytest.approx(each.gap) for each in found.candidates)
    scores = [each.gap * each.stability for each in found.candidates]
    assert scores == sorted(scores, reverse=True)


def test_outliers_are_no_clusters():
    x = gaussians(4, 400)
    x[:3] = 40 * np.eye(16, dtype=np.float32)[:3]
    assert count_clusters(x).n_clusters == 4


def test_the_same_from_any_dtype_and_number_of_threads(threads):
    x = gaussians(5, 300).astype(np.float16)
    threads(1)
    one = count_clusters(x)
    threads(4)
    assert count_clusters(torch.from_numpy(x).float()) == one
    assert count_clusters(x, seed=1).n_clusters == 5


def test_many_rows_are_sampled():
    x = gaussians(6, 3000)
    found = count_clusters(x, max_rows=500, n_parts=2)
    assert found.n_clusters == 6
    assert found.n_trees == 3


def test_merges_of_small_clusters_do_not_count():
    x = torch.from_numpy(gaussians(3, 300))
    found = _tree(x, 20, 10)
    # Known for every number of large clusters from 2 on, up to that before the first merge of two of them.
    known = (~found.affinities.isnan()).nonzero().flatten()
    assert known[0] == 2
    assert torch.equal(known, torch.arange(2, int(known[-1]) + 1))
    gaps = _gaps(found.affinities)
    assert len(gaps) == 9
    assert int(gaps.argmax()) + 2 == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_most": 1}, "'at_most' must be at least 2, got 1"),
        ({"share": 1.0}, "'share' must be below 1, got 1"),
        ({"n_parts": 0}, "'n_parts' must be at least 1, got 0"),
        ({"k": 0}, "'k' must be at least 1, got 0"),
    ],
)
def test_what_it_refuses(options, message):
    with pytest.raises(ValueError, match=f"count_clusters: {message}"):
        count_clusters(gaussians(2, 40), **options)
    with pytest.raises(ValueError, match="'x' must have at least 10 rows, got 9"):
        count_clusters(np.zeros((9, 3)))


def test_rows_that_are_all_the_same_have_no_gap():
    found = count_clusters(np.zeros((60, 4), np.float32))
    assert found.n_clusters == 1
    assert found.candidates == []
