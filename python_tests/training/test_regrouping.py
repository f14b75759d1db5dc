"""Sizes of final clusters: what is merged and split, that other rows follow, and what confidence becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepclust_ext.training.placement import Centers, find_centers
from deepclust_ext.training.regrouping import Regrouping, regroup


def rows_of(sizes, seed=0, d=3, spread=0.3):
    """Clusters of these sizes on a line, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    rows = spread * torch.randn(len(labels), d, generator=generator)
    rows[:, 0] += 4.0 * labels
    order = torch.randperm(len(labels), generator=generator)
    return rows[order], labels[order]


def sizes_of(labels):
    return sorted(torch.bincount(labels)[torch.bincount(labels) > 0].tolist())


def test_small_clusters_join_the_nearest_as_a_whole():
    rows, labels = rows_of([40, 3, 30, 50, 2])
    rows[labels == 1, 0] += 1.0
    found, merged = regroup(rows, labels, 6, min_size=10)
    # The smallest first: 4 joins 3; then 1, moved to 5, joins 2 at 8 and not 0 at 0. Nobody is in 5.
    assert found.into.tolist() == [0, 2, 2, 3, 3, 5]
    assert torch.equal(merged, found.into[labels])
    assert found.record() == {"merged": [[1, 2], [4, 3]], "split": []}
    assert torch.equal(found.apply(labels, rows), merged)


def test_small_clusters_join_each_other_before_all_are_one():
    rows, labels = rows_of([6] * 8)
    _, merged = regroup(rows, labels, 8, min_size=10)
    assert sizes_of(merged) == [12] * 4
    assert sizes_of(regroup(rows, labels, 8, min_size=48)[1]) == [48]
    assert regroup(rows, labels, 8, min_size=6)[0].changes is False


@pytest.mark.parametrize(("n", "most"), [(101, 100), (100, 33), (97, 10), (7, 2), (300, 299)])
def test_large_clusters_are_split_into_parts_of_at_least_half(n, most):
    rows, labels = rows_of([n, 2])
    found, split = regroup(rows, labels, 2, max_size=most)
    parts = torch.bincount(split)
    assert parts[1] == 2
    assert (parts[parts != 2] <= most).all()
    assert (parts[torch.arange(len(parts)) != 1] >= (most + 1) // 2).all()
    assert parts.sum() == n + 2
    # The larger part keeps the number, and the same rows come to the same clusters one by one.
    assert len(parts) > 3 or parts[0] >= parts[2]
    assert torch.equal(found.apply(labels, rows), split)
    one = torch.cat([found.apply(label[None], row[None]) for label, row in zip(labels, rows, strict=True)])
    assert torch.equal(one, split)
    again = Regrouping(**found.state())
    assert torch.equal(again.apply(labels, rows), split)
    assert torch.equal(regroup(rows, labels, 2, max_size=most)[1], split)


def test_a_split_is_where_the_gap_is_if_sizes_allow():
    rows, labels = rows_of([60, 45, 45])
    joined = torch.where(labels == 2, 1, labels)
    _, split = regroup(rows, joined, 2, max_size=80)
    assert torch.equal(split == split[labels == 1][0], labels == 1)
    assert torch.equal(split == split[labels == 2][0], labels == 2)
    # 80 of 90 are at one place: ten are not enough of a part, so the cut moves to where 45 are.
    rows, _ = rows_of([80, 10])
    parts = regroup(rows, torch.zeros(90, dtype=torch.int64), 1, max_size=89)[1]
    assert sizes_of(parts) == [45, 45]


def test_rows_that_are_equal_keep_the_sizes():
    found, split = regroup(torch.ones(11, 2), torch.zeros(11, dtype=torch.int64), 1, max_size=5)
    assert sizes_of(split) == [3, 3, 5]
    # Nothing tells new ones apart.
    assert len(set(found.apply(torch.zeros(4, dtype=torch.int64), torch.ones(4, 2)).tolist())) == 1


def test_threads_do_not_show(threads):
    rows, labels = rows_of([700, 5, 300], d=40)
    options = {"min_size": 20, "max_size": 90}
    threads(1)
    one, first = regroup(rows, labels, 3, **options)
    threads(4)
    four, second = regroup(rows, labels, 3, **options)
    assert torch.equal(first, second)
    assert torch.equal(one.directions, four.directions)
    assert torch.equal(one.thresholds, four.thresholds)


def test_a_margin_and_the_runner_up():
    centers = Centers(torch.tensor([[0.0], [10.0], [float("nan")], [40.0]]), by_margin=True)
    rows = torch.tensor([[0.0], [5.0], [8.0], [8.0], [40.0]])
    found = centers.place(rows, torch.tensor([0, 0, 1, 0, 3]), torch.zeros(5))
    assert np.allclose(found.confidence, [1, 0, 1 - 2 / 8, 0, 1])
    assert found.runner_up.tolist() == [1, 1, 0, 1, 1]
    assert np.allclose(found.distance, [0, 5, 2, 8, 0])
    assert np.allclose(found.runner_up_distance, [10, 5, 8, 2, 30])
    assert found.labels(0.5).tolist() == [0, -1, 1, -1, 3]
    assert found.labels(None).tolist() == [0, 0, 1, 0, 3]


def test_a_single_cluster_has_no_runner_up():
    found = Centers(torch.zeros(1, 2), by_margin=True).place(torch.ones(3, 2), torch.zeros(3, dtype=int), torch.ones(3))
    assert found.confidence.tolist() == [1, 1, 1]
    assert found.runner_up.tolist() == [-1] * 3
    assert np.isnan(found.runner_up_distance).all()


def test_a_posterior_counts_unless_the_parts_of_a_split_are_closer():
    rows, labels = rows_of([60, 60, 9])
    joined = labels.clamp_min(1) - 1  # 0 and 1 are one cluster, at 2 in the mean, and 2 another
    regrouping, clusters = regroup(rows, joined, 2, max_size=100)
    centers = find_centers(rows, clusters, None, regrouping)
    found = centers.place(rows, clusters, torch.full((129,), 0.9))
    own, other = centers.points[clusters], centers.points[torch.where(clusters == 0, 2, 0)]
    margins = 1 - (rows - own).norm(dim=1) / (rows - other).norm(dim=1)
    split = clusters != 1
    assert np.allclose(found.confidence[split], margins[split].clamp_max(0.9), atol=1e-5)
    assert (found.confidence[~split] == np.float32(0.9)).all()
    assert (found.confidence[split] < 0.9).any()


def test_given_centroids_stay_unless_their_cluster_changed():
    rows, labels = rows_of([50, 3, 20, 30])
    given = torch.stack([rows[labels == k].mean(0) + 0.01 for k in range(4)])
    regrouping, clusters = regroup(rows, labels, 5, min_size=5, max_size=40)
    centers = find_centers(rows, clusters, given, regrouping)
    assert centers.by_margin
    assert torch.equal(centers.points[3], given[3])
    gone = regrouping.into[1]
    assert centers.points[1].isnan().all()
    assert centers.points[4].isnan().all()
    for k in {0, int(gone), 5}:
        assert torch.allclose(centers.points[k], rows[clusters == k].mean(0), atol=1e-5)
