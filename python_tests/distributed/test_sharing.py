"""Clustering and neighbours of which each process does its share: the bits of one process, and a part of its rows."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.nn.feature_space import FeatureSpace
from deepclust_ext.ops import _raw
from deepclust_ext.training import joined, sharing
from deepclust_ext.training.discovery import discover


def rows(n, d=9):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    x[n // 2 :] = x[: n - n // 2].clone()  # copies, which tie, on other ranks
    return x


def calls(n):
    """What is shared, by name: tensors to compare."""
    x = rows(n)
    space = FeatureSpace(9, 5, 3)

    def fitted():
        result = space.fit(3 * x, n_init=2, seed=3, search=sharing.shared_kmeans)
        return result.labels, result.centroids, result.inertia, result.n_iter, space.centroids, space.variance

    def merged():
        space.fit(3 * x, seed=3)
        return space.merge(x, sharing.shared_affinity_graph), space.centroids

    return {
        "kmeans": lambda: sharing.shared_kmeans(x, 5, seed=1)[:4],
        "far": lambda: sharing.shared_kmeans(x, 5, seed=1, spherical=True, max_memory=1 << 30)[:4],
        "knn": lambda: sharing.shared_knn(x, 4, metric="inner"),
        "graph": lambda: sharing.shared_affinity_graph(x, 4, a=0.7),
        "entropy": lambda: (sharing.shared_entropy(x, temperature=0.3),),
        "others": lambda: (sharing.shared_entropy(x, torch.arange(n), temperature=0.3),),
        "discover": lambda: discover(x, 3, n // 2, temperature=0.3),
        "space": fitted,
        "merge": merged,
    }


def shared(group, rank, n):
    """Results, and the most rows that a rank has searched for, of whatever is worth sharing."""
    most, watched = {}, ("knn", "kmeans_assign", "bank_nll_entropy")
    originals = {name: getattr(_raw, name) for name in watched}
    worth, sharing._WORTH = sharing._WORTH, 1

    def counting(name):
        def count(first, second, *rest):
            asked = first if name != "knn" or second is None else second
            most[name] = max(most.get(name, 0), len(asked))
            return originals[name](first, second, *rest)

        return count

    try:
        for name in watched:
            setattr(_raw, name, counting(name))
        with joined(group):
            return {name: tuple(call()) for name, call in calls(n).items()}, most
    finally:
        sharing._WORTH = worth
        for name, original in originals.items():
            setattr(_raw, name, original)


@pytest.mark.parametrize("n", [97, 12])
def test_each_rank_has_the_bits_of_one_process_and_does_its_share(ranks, n):
    expected = {name: tuple(call()) for name, call in calls(n).items()}
    for world in (1, 2, 3):
        for found, most in ranks(world, shared, n):
            for name, parts in found.items():
                for a, b in zip(parts, expected[name], strict=True):
                    assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), (world, name)
            if world > 1:
                # K-means++ assigns to a few centroids as well, of its own rows.
                assert max(most.values()) <= -(-n // world)


def unshared(group, rank):
    with joined(group):
        before = group.size()
        calls = []
        original, torch.distributed.all_gather = torch.distributed.all_gather, lambda *_, **__: calls.append(1)
        try:
            sharing.shared_kmeans(rows(50), 3)
            sharing.shared_knn(rows(50), 3)
        finally:
            torch.distributed.all_gather = original
        return before, len(calls)


def test_little_work_is_done_by_each(ranks):
    assert ranks(2, unshared) == [(2, 0)] * 2
