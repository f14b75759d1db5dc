"""Paths of the searches that no sample of an op reaches: every rule for empty clusters, seeding, long lists, strips."""

from __future__ import annotations

import pytest
import torch
from support.rehearsal import REHEARSED
from torch import Tensor

import deepclust_ext
from deepclust_ext import reference


def whole_numbers(*shape: int, most: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=generator).to(dtype)


def same_clusters(got: deepclust_ext.KMeansResult, want: deepclust_ext.KMeansResult) -> None:
    """Everything whose order of summation is fixed has the same bits; inertia is summed in each device's own."""
    for name in ("centroids", "labels", "n_iter", "n_empty"):
        assert torch.equal(getattr(got, name).cpu(), getattr(want, name)), name
    for ours, theirs in zip(got.history, want.history, strict=True):
        for name in ("moved", "empty", "imbalance"):
            torch.testing.assert_close(getattr(ours, name).cpu(), getattr(theirs, name), rtol=1e-12, atol=0)
    torch.testing.assert_close(got.inertia.cpu(), want.inertia, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("empty", ["split", "farthest", "keep"])
def test_a_rule_for_empty_clusters_does_as_on_the_cpu(empty, dtype, kernels, monkeypatch):
    """Wide whole numbers: sums are exact, and no two distances are alike up to rounding."""
    x = whole_numbers(320, 6, most=500, dtype=dtype)
    start = torch.cat([x[:4], x[:3] + 20_000])  # three that no point is near
    with monkeypatch.context() as patch:
        want = on_the_cpu(patch, lambda: deepclust_ext.kmeans(x, 7, init=start, empty=empty, max_iter=6))
    assert want.n_empty > 0
    got = deepclust_ext.kmeans(kernels.put(x), 7, init=kernels.put(start), empty=empty, max_iter=6)
    same_clusters(got, want)
    with kernels.offset():
        moved = deepclust_ext.kmeans(kernels.put_offset(x), 7, init=kernels.put_offset(start), empty=empty, max_iter=6)
    same_clusters(moved, want)


def test_a_start_by_seeding_is_the_same_twice_and_the_cpus(kernels, monkeypatch):
    """Small whole numbers: every distance and every weight of a draw is exact, ties included."""
    x = whole_numbers(900, 5, most=7)
    with monkeypatch.context() as patch:
        seeded = on_the_cpu(patch, lambda: deepclust_ext.kmeans(x, 9, max_iter=0, seed=3))
    first, second = (deepclust_ext.kmeans(kernels.put(x), 9, max_iter=0, seed=3) for _ in range(2))
    same_clusters(first, seeded)
    same_clusters(second, seeded)

    wide = whole_numbers(700, 5, most=3000, seed=1)
    with monkeypatch.context() as patch:
        want = on_the_cpu(patch, lambda: deepclust_ext.kmeans(wide, 5, max_iter=8, seed=1))
    first, second = (deepclust_ext.kmeans(kernels.put(wide), 5, max_iter=8, seed=1) for _ in range(2))
    same_clusters(first, want)
    assert torch.equal(first.inertia, second.inertia)
    assert torch.equal(first.centroids, second.centroids)


def on_the_cpu(patch, call):
    """`call` by the CPU's ops, where the emulator stands in their place."""
    from deepclust_ext.ops import _raw

    for name in ("kmeans", "kmeans_assign", "kmeans_plusplus", "knn"):
        patch.setattr(_raw, name, getattr(torch.ops.deepclust, name).default)
    return call()


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner"])
def test_more_neighbours_than_a_block_sorts_at_once(metric, kernels):
    generator = torch.Generator().manual_seed(0)
    x, query = torch.randn(1600, 6, generator=generator), torch.randn(3, 6, generator=generator)
    values, indices = deepclust_ext.knn(kernels.put(x), 1500, query=kernels.put(query), metric=metric)
    want_values, want_indices = reference.knn(x.double(), 1500, query=query.double(), metric=metric)
    torch.testing.assert_close(values.cpu().double(), want_values, rtol=0, atol=1e-5 * float(want_values.abs().max()))
    assert (indices.cpu().sort(-1).values.diff(dim=-1) > 0).all()
    assert (indices.cpu() == want_indices).double().mean() > 0.99  # values that agree up to rounding may change places
    with kernels.offset():
        moved = deepclust_ext.knn(kernels.put_offset(x), 1500, query=kernels.put_offset(query), metric=metric)
    assert torch.equal(moved.values, values)
    assert torch.equal(moved.indices, indices)


@pytest.mark.cuda
def test_a_graph_in_several_strips(gpu):
    """A strip of costs takes 256 MiB: these take six."""
    points = 300 if REHEARSED else 20_000
    x = torch.randn(points, 24, generator=torch.Generator().manual_seed(0)).to(gpu)
    values, indices = deepclust_ext.knn(x, 100)
    chosen = torch.arange(0, points, points // 60, device=gpu)
    costs = torch.cdist(x[chosen].double(), x.double()).square()
    costs[torch.arange(len(chosen), device=gpu), chosen] = torch.inf
    want = costs.topk(100, largest=False)
    torch.testing.assert_close(values[chosen].double(), want.values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(costs.gather(1, indices[chosen]), want.values, rtol=1e-5, atol=1e-5)
    assert (indices.sort(-1).values.diff(dim=-1) > 0).all()


@pytest.mark.cuda
def test_a_query_on_another_device_is_refused(gpu):
    x = torch.randn(50, 4)
    other = "meta" if REHEARSED else "cpu"
    with pytest.raises(ValueError, match="knn: 'query' must be on x's device"):
        deepclust_ext.knn(x.to(gpu), 3, query=x.to(other))
    with pytest.raises(ValueError, match="knn_classify: 'query' must be on bank's device"):
        deepclust_ext.knn_classify(x.to(gpu), torch.zeros(50, dtype=torch.int64, device=gpu), x.to(other))


@pytest.mark.cuda
def test_votes_are_the_cpus_and_the_same_twice(gpu):
    generator = torch.Generator().manual_seed(0)
    bank, query = torch.randn(3000, 16, generator=generator), torch.randn(200, 16, generator=generator)
    labels = torch.randint(7, (3000,), generator=generator)
    want = deepclust_ext.knn_classify(bank, labels, query, k=50)
    first, second = (deepclust_ext.knn_classify(bank.to(gpu), labels.to(gpu), query.to(gpu), k=50) for _ in range(2))
    torch.testing.assert_close(first.scores.cpu(), want.scores, rtol=1e-4, atol=1e-6)
    assert torch.equal(first.scores, second.scores)
    assert torch.equal(first.labels, second.labels)


@pytest.mark.cuda
@pytest.mark.parametrize(("n", "d", "count"), [(900, 40, 12), (30, 90, 9)])
def test_whitening_is_the_cpus_and_the_same_twice(n, d, count, gpu):
    spread = torch.linspace(3, 0.5, d)
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * spread
    want, _ = deepclust_ext.pca_whiten(x, count)
    first, transform = deepclust_ext.pca_whiten(x.to(gpu), count)
    second, _ = deepclust_ext.pca_whiten(x.to(gpu), count)
    torch.testing.assert_close(first.cpu(), want, rtol=0, atol=1e-4)
    assert torch.equal(first, second)
    assert torch.equal(transform(x.to(gpu)), first)
