"""k-means at the edges: degenerate data, empty clusters, starts, properties, errors."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import paths
from support.opspecs import points
from support.searches import same

from deepclust_ext import kmeans, kmeans_assign, reference
from deepclust_ext.ops import _kmeans

EMPTY = ["split", "farthest", "keep"]
INIT = ["k-means++", "random"]


def objectives(result):
    return [record.objective.item() for record in result.history]


def total(x):
    return (x.double() - x.double().mean(-2, keepdim=True)).square().sum().item()


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 20),
    share=st.floats(0, 1),
    init=st.sampled_from(INIT),
    empty=st.sampled_from(EMPTY),
    spherical=st.booleans(),
    distinct=st.integers(1, 60),
    seed=st.integers(0, 2**31),
)
def test_properties(n, d, share, init, empty, spherical, distinct, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(distinct, d, generator=generator)[torch.randint(distinct, (n,), generator=generator)]
    clusters = 1 + int(share * (n - 1))
    result = kmeans(x, clusters, init=init, empty=empty, spherical=spherical, seed=seed, max_iter=8)
    assert result.centroids.isfinite().all()
    assert result.inertia.isfinite()
    assert result.labels.min() >= 0
    assert result.labels.max() < clusters
    # The objective never rises, and the last assignment is no worse than the last recorded one.
    rounding = 1e-6 * (total(x) + n)
    falling = [*objectives(result), result.inertia.item()]
    assert all(later <= earlier + rounding for earlier, later in itertools.pairwise(falling))
    if not spherical:
        labels, squared = kmeans_assign(x, result.centroids)
        assert torch.equal(labels, result.labels)
        assert squared.double().sum().item() == pytest.approx(result.inertia.item(), rel=1e-5, abs=1e-6)
    again = kmeans(x, clusters, init=init, empty=empty, spherical=spherical, seed=seed, max_iter=8)
    assert torch.equal(again.centroids, result.centroids)
    assert torch.equal(again.labels, result.labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("init", INIT)
def test_as_many_clusters_as_points(init, dtype, generator):
    x = torch.randn(37, 5, generator=generator, dtype=dtype)
    result = kmeans(x, 37, init=init)
    assert result.inertia.item() == pytest.approx(0, abs=1e-20)
    assert sorted(result.labels.tolist()) == list(range(37))
    assert result.n_iter.item() <= 2
    assert result.n_empty.item() == 0


def test_one_cluster_is_the_mean(generator):
    x = points(generator, 1001, 7).float()
    result = kmeans(x, 1)
    torch.testing.assert_close(result.centroids[0], x.double().mean(0).float(), rtol=0, atol=1e-6)
    assert result.inertia.item() == pytest.approx(total(x), rel=1e-6)
    assert not result.labels.any()


def test_one_point():
    result = kmeans(torch.tensor([[2.0, 3.0]]), 1)
    assert result.centroids.tolist() == [[2.0, 3.0]]
    assert result.inertia.item() == 0


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e20, 1e-20])
@pytest.mark.parametrize("init", INIT)
@pytest.mark.parametrize("empty", EMPTY)
def test_identical_points(empty, init, value):
    result = kmeans(torch.full((50, 3), value), 4, init=init, empty=empty)
    assert torch.equal(result.centroids, torch.full((4, 3), value))
    assert not result.labels.any()  # ties to the lowest centroid
    assert result.inertia.item() == 0
    assert [record.empty.item() for record in result.history] == [3] * len(result.history)
    assert result.n_empty.item() == 3 * result.n_iter.item()
    assert result.n_iter.item() == 1


@pytest.mark.parametrize("init", INIT)
@pytest.mark.parametrize("empty", EMPTY)
def test_fewer_different_points_than_clusters(empty, init, generator):
    different = torch.randn(5, 8, generator=generator)
    x = different.repeat(20, 1)[torch.randperm(100, generator=generator)]
    result = kmeans(x, 9, init=init, empty=empty, max_iter=50)
    assert result.centroids.isfinite().all()
    if init == "k-means++" or empty != "keep":  # random seeds may miss one of the five, and then keep to it
        assert result.inertia.item() == 0
        assert result.labels.unique().numel() == 5
    assert result.n_iter.item() < 50


def test_two_different_points_give_two_clusters():
    x = torch.tensor([[0.0], [1.0]]).repeat(50, 1)
    for init in INIT:
        for seed in range(10):
            assert kmeans(x, 2, init=init, seed=seed).labels.unique().numel() == 2


def test_a_million_identical_points_and_counts_do_not_saturate():
    """A float32 counter stops at 2^24, and a float32 sum of a million equal values is off in the third digit."""
    x = torch.full((1_000_000, 2), 0.1)
    x[0] = 1000.0
    result = kmeans(x, 1)
    exact = x.double().mean(0).float()
    torch.testing.assert_close(result.centroids[0], exact, rtol=1e-7, atol=0)


EMPTY_X = torch.tensor([[0.0], [1.0], [2.0], [10.0], [30.0], [31.0]])
EMPTY_START = torch.tensor([[1.0], [30.0], [1000.0]])


@pytest.mark.parametrize(
    ("rule", "centroids"),
    [
        # Cluster 0 has 0, 1, 2, 10 and cluster 1 has 30, 31: the farthest member of the larger one is 10.
        ("split", [[1.0], [30.5], [10.0]]),
        ("farthest", [[1.0], [30.5], [10.0]]),
        ("keep", [[3.25], [30.5], [1000.0]]),
    ],
)
def test_empty_clusters(rule, centroids):
    result = kmeans(EMPTY_X, 3, init=EMPTY_START, empty=rule, max_iter=1)
    assert result.centroids.tolist() == centroids
    assert result.n_empty.item() == 1
    assert result.history[0].empty.item() == 1


def test_split_takes_from_the_largest_and_farthest_from_anywhere():
    x = torch.tensor([[0.0], [0.0], [1.0], [50.0], [60.0]])
    start = torch.tensor([[0.0], [50.0], [-1000.0]])
    assert kmeans(x, 3, init=start, empty="split", max_iter=1).centroids.tolist() == [[0.0], [55.0], [1.0]]
    assert kmeans(x, 3, init=start, empty="farthest", max_iter=1).centroids.flatten().tolist() == pytest.approx(
        [1 / 3, 50.0, 60.0]
    )


def test_the_only_member_of_a_cluster_is_not_taken():
    x = torch.tensor([[0.0], [1.0], [1.0], [50.0]])
    for rule in ("split", "farthest"):
        result = kmeans(x, 3, init=torch.tensor([[0.0], [40.0], [1000.0]]), empty=rule, max_iter=1)
        assert result.centroids.tolist() == [[0.5], [50.0], [1.0]]


def test_empty_clusters_are_seeded_one_after_another():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    start = torch.tensor([[0.0], [100.0], [200.0], [300.0]])
    result = kmeans(x, 4, init=start, max_iter=1)
    assert result.centroids.tolist() == [[0.0], [7.0], [3.0], [1.0]]
    assert result.n_empty.item() == 3


def test_ties_go_to_the_lowest_centroid():
    x = torch.tensor([[0.0], [2.0], [1.0]])
    assert kmeans_assign(x, torch.tensor([[2.0], [0.0], [2.0], [0.0]])).labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize("path", paths.names())
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_assignment_is_the_one_of_its_own_distances(path, scale, offset, generator, monkeypatch):
    """The filter must not cost a label, not even between centroids that nearly tie."""
    paths.take(path, monkeypatch)
    x = torch.randn(500, 33, generator=generator) * scale + offset
    near = x[:40] + 1e-4 * scale * torch.randn(40, 33, generator=generator)
    centroids = torch.cat([near, x[:40] + 0.1 * scale, near])
    labels, squared = kmeans_assign(x, centroids)
    for k in range(len(centroids)):  # each distance by the same arithmetic, one centroid at a time
        own = kmeans_assign(x, centroids[k : k + 1]).squared_distances
        assert (squared <= own).all()
        assert (labels[own == squared] <= k).all()
        assert torch.equal(own[labels == k], squared[labels == k])


@pytest.mark.parametrize("path", paths.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 16, 40])
def test_bounds_hold_where_squares_leave_the_range_of_float32(dtype, d, path, generator, monkeypatch):
    """The filter computes in float32, also for points of float64 whose own distances lose nothing there."""
    paths.take(path, monkeypatch)
    for power in (-45, -30, -24, -23, -22, -21, -20, -19, 17, 18, 19, 20, 30):
        x = torch.randn(200, d, generator=generator, dtype=torch.float64) * 10.0**power
        centroids = x[:30] + 0.3 * torch.randn(30, d, generator=generator, dtype=torch.float64) * 10.0**power
        x, centroids = x.to(dtype), centroids.to(dtype)
        labels, squared = kmeans_assign(x, centroids)
        own = kmeans_assign(x.expand(30, -1, -1), centroids.unsqueeze(1)).squared_distances
        assert torch.equal(squared, own.amin(0)), power
        assert torch.equal(labels, own.argmin(0)), power


@pytest.mark.parametrize("side", ["points", "centroids"])
@pytest.mark.parametrize("d", [2, 3, 5, 8, 20])
def test_bounds_hold_where_codes_err_most(d, side, generator):
    """Almost one distance in all directions: every code errs in its own way, and one that is left out shows."""
    x = torch.randint(-127, 128, (300, 4, d), generator=generator).float()
    x[:, 1:] = -x[:, :1] / 3  # the mean is 0, and the first point is far from it
    directions = torch.nn.functional.normalize(torch.randn(300, 40, d, generator=generator), dim=-1)
    centroids = x[:, :1] + directions * (20 + 0.5 * torch.rand(300, 40, 1, generator=generator))
    if side == "points":
        x, centroids = centroids.round() * 0.987, x[:, :1] + torch.randn(300, 40, d, generator=generator).sign()
    labels, squared = kmeans_assign(x, centroids)
    own = kmeans_assign(x.unsqueeze(1).expand(-1, 40, -1, -1), centroids.unsqueeze(2)).squared_distances
    assert torch.equal(squared, own.amin(1))
    assert torch.equal(labels, own.argmin(1))


def test_points_far_from_the_origin_keep_their_distances(generator):
    """Distances from |x|^2 - 2 x c + |c|^2 would be lost in rounding here."""
    x = torch.randn(400, 4, generator=generator) + 1e5
    centroids = x[:7].clone()
    exact = reference.kmeans_assign(x.double(), centroids.double())
    labels, squared = kmeans_assign(x, centroids)
    torch.testing.assert_close(squared.double(), exact[1], rtol=1e-6, atol=0)
    assert torch.equal(labels, exact[0])
    assert kmeans(x, 3).history[0].objective.item() < 1e4


def test_distances_beyond_the_range_of_float32_still_give_labels():
    x = torch.tensor([[-1e25], [1e25]])
    result = kmeans(x, 2)
    assert result.labels.min() >= 0
    assert result.labels.max() < 2


def test_one_far_outlier_does_not_spoil_the_rest(generator):
    x = torch.cat([points(generator, 300, 6).float(), torch.full((1, 6), 1e6)])
    start = x[[0, 1, 300]]
    exact = reference.kmeans(x.double(), start.double())
    result = kmeans(x, 3, init=start)
    assert torch.equal(result.labels, exact[1])
    torch.testing.assert_close(result.centroids, exact[0].float(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("rule", EMPTY)
@pytest.mark.parametrize("spherical", [False, True])
def test_matches_the_reference_step_by_step(rule, spherical, generator):
    x = points(generator, 200, 6)
    start = torch.cat([x[:9], x[:4] + 50])  # four that start far away
    exact = reference.kmeans(x, start, empty=rule, spherical=spherical)
    result = kmeans(x, 13, init=start, empty=rule, spherical=spherical)
    torch.testing.assert_close(result.centroids, exact[0], rtol=1e-9, atol=1e-9)
    assert torch.equal(result.labels, exact[1])
    assert result.n_iter.item() == exact[3]
    assert [r.empty.item() for r in result.history] == [h[2] for h in exact[4]]


def test_spherical_ignores_lengths(generator):
    x = torch.randn(200, 5, generator=generator)
    first = kmeans(x, 6, spherical=True)
    lengths = 2.0 ** torch.randint(-3, 4, (200, 1), generator=generator)
    second = kmeans(x * lengths, 6, spherical=True)
    assert torch.equal(first.labels, second.labels)
    torch.testing.assert_close(first.centroids.norm(dim=1), torch.ones(6))
    assert kmeans(torch.cat([x, torch.zeros(1, 5)]), 6, spherical=True).centroids.isfinite().all()
    opposite = kmeans(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 1, spherical=True)
    assert opposite.centroids.norm().item() == pytest.approx(1)


def test_tol_stops_at_a_short_step(generator):
    x = points(generator, 500, 3)
    steps = []
    start = x[:5].clone()
    for _ in range(6):
        after = kmeans(x, 5, init=start, max_iter=1).centroids
        steps.append((after - start).square().sum(1).max().item())
        start = after
    expected = next(i for i, s in enumerate(steps) if s <= steps[3]) + 1
    assert kmeans(x, 5, init=x[:5], tol=steps[3]).n_iter.item() == expected
    assert kmeans(x, 5, init=x[:5], tol=math.nextafter(steps[expected - 1], 0)).n_iter.item() > expected


def test_settled_runs_stop_and_change_no_more(generator):
    x = points(generator, 300, 3)
    result = kmeans(x, 4, max_iter=500)
    assert result.n_iter.item() < 500
    assert result.history[-1].moved.item() == 0
    assert torch.equal(kmeans(x, 4, init=result.centroids).centroids, result.centroids)
    assert len(result.history) == result.n_iter.item()
    assert result.history[0].moved.item() == 1


def test_no_iteration_gives_the_start(generator):
    x = points(generator, 30, 3)
    result = kmeans(x, 4, init=x[:4], max_iter=0)
    assert torch.equal(result.centroids, x[:4])
    assert result.history == []
    assert result.labels[:4].tolist() == [0, 1, 2, 3]


def test_imbalance():
    x = torch.tensor([[0.0], [0.0], [0.0], [9.0]])
    assert kmeans(x, 2, init=torch.tensor([[0.0], [9.0]])).history[0].imbalance.item() == 2 * (9 + 1) / 16


def test_best_of_several_starts(generator):
    x = points(generator, 400, 3, clusters=40, spread=0.1)
    one = [kmeans(x, 40, init="random", n_init=n, max_iter=5).inertia.item() for n in (1, 2, 8)]
    assert one[0] >= one[1] >= one[2]
    assert one[2] < one[0]
    batched = kmeans(torch.stack([x, x.flip(0) * 2]), 12, init="random", n_init=8, max_iter=30)
    assert batched.inertia.shape == batched.n_iter.shape == batched.n_empty.shape == (2,)
    assert batched.history[0].objective.shape == (2,)
    again = kmeans_assign(torch.stack([x, x.flip(0) * 2]), batched.centroids)
    torch.testing.assert_close(again.squared_distances.sum(-1), batched.inertia)


def test_plusplus_draws_by_squared_distance():
    """Of points at 0 (twice), 1 and 3, with 0 drawn first, 3 follows nine times out of ten."""
    x = torch.tensor([[0.0], [0.0], [1.0], [3.0]])
    counts = {1.0: 0, 3.0: 0}
    firsts = torch.zeros(4)
    for seed in range(4000):
        first, second = torch.ops.deepclust.kmeans_plusplus(x, 2, seed).tolist()
        firsts[first] += 1
        if x[first].item() == 0:
            counts[x[second].item()] += 1
    assert counts[3.0] / sum(counts.values()) == pytest.approx(0.9, abs=0.025)
    torch.testing.assert_close(firsts / 4000, torch.full((4,), 0.25), rtol=0, atol=0.04)


def test_plusplus_stays_exact_where_its_weights_are_stale():
    """The fourth seed is drawn by rejection from weights that do not know of the third yet."""
    x = torch.tensor([[0.0], [1.0], [100.0], [101.0], [102.0], [200.0], [201.0]])
    drawn, expected = torch.zeros(7), torch.zeros(7)
    for seed in range(6000):
        *before, fourth = torch.ops.deepclust.kmeans_plusplus(x, 4, seed).tolist()
        drawn[fourth] += 1
        squared = (x - x[before].T).square().amin(1)
        expected += squared / squared.sum()
    torch.testing.assert_close(drawn / 6000, expected / 6000, rtol=0, atol=0.02)


def test_plusplus_starts_better_than_random_points(generator):
    x = points(generator, 2000, 8, clusters=40, spread=0.1)
    start = {init: kmeans(x, 40, init=init, max_iter=0, seed=3).inertia.item() for init in INIT}
    assert start["k-means++"] < 0.7 * start["random"]


@pytest.mark.parametrize("init", INIT)
def test_starts_are_distinct_points_and_seeded(init, generator):
    x = points(generator, 150, 3)
    results = [kmeans(x, 100, init=init, seed=seed, max_iter=0).centroids for seed in (0, 0, 1, -5, 2**62)]
    assert torch.equal(results[0], results[1])
    assert not any(torch.equal(results[0], other) for other in results[2:])
    for centroids in results:
        assert len(centroids.unique(dim=0)) == 100
    state = torch.get_rng_state()
    kmeans(x, 5, init=init)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_default_device_does_not_move_the_draws(generator):
    x = points(generator, 50, 3)
    want = kmeans(x, 4, init="random").labels
    with torch.device("meta"):
        assert torch.equal(kmeans(x, 4, init="random").labels, want)


def test_more_clusters_fit_better(generator):
    x = points(generator, 1000, 10, clusters=30)
    inertia = [kmeans(x, k, n_init=3).inertia.item() for k in (1, 8, 64, 512)]
    assert inertia == sorted(inertia, reverse=True)


def test_mixed_dtypes_and_shared_starts(generator):
    x = points(generator, 2, 50, 3).float()
    result = kmeans(x, 4, init=x[0, :4].double())
    assert result.centroids.dtype == torch.float64
    assert result.centroids.shape == (2, 4, 3)
    labels, squared = kmeans_assign(x, x[0, :4].double())
    assert labels.shape == squared.shape == (2, 50)


def test_assign_under_compile_and_vmap(generator):
    x, centroids = points(generator, 3, 40, 5), points(generator, 6, 5)
    want = kmeans_assign(x, centroids)
    mapped = torch.func.vmap(kmeans_assign, in_dims=(0, None))(x, centroids)
    assert torch.equal(mapped.labels, want.labels)
    torch._dynamo.reset()
    compiled = torch.compile(lambda a, b: kmeans_assign(a, b).squared_distances.sum(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, centroids), want.squared_distances.sum())
    with pytest.raises(RuntimeError, match="kmeans_assign: 'x' must be finite"):
        compiled(x * math.nan, centroids)


def nan_at(row):
    x = torch.zeros(9, 3)
    x[row, 1] = math.nan
    return x


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: kmeans([[1.0]], 1), TypeError, r"kmeans: 'x' must be a torch.Tensor, got list"),
        (lambda x: kmeans(x.long(), 2), TypeError, r"kmeans: 'x' must be float16, .* got torch.int64"),
        (lambda x: kmeans(x[0], 1), ValueError, r"kmeans: 'x' must have shape \(\.\.\., N, d\) .*, got \(3,\)"),
        (lambda x: kmeans(x[:, :0], 1), ValueError, r"kmeans: 'x' must have shape"),
        (lambda x: kmeans(x, 10), ValueError, r"'n_clusters' must be at most the number of points, 9, got 10"),
        (lambda x: kmeans(x[:0], 1), ValueError, r"'n_clusters' must be at most the number of points, 0, got 1"),
        (lambda x: kmeans(x, 0), ValueError, r"kmeans: 'n_clusters' must be at least 1, got 0"),
        (lambda x: kmeans(x, 2.0), TypeError, r"kmeans: 'n_clusters' must be a whole number, got 2.0"),
        (lambda x: kmeans(x, True), TypeError, r"kmeans: 'n_clusters' must be a whole number, got True"),
        (lambda x: kmeans(x, 2, init="kmeans"), ValueError, r"'init' must be 'k-means\+\+', 'random' or .* 'kmeans'"),
        (
            lambda x: kmeans(x, 2, init=x[:2].numpy()),
            TypeError,
            r"'init' must be .* a tensor of centroids, got ndarray",
        ),
        (lambda x: kmeans(x, 2, init=x[:2].long()), TypeError, r"kmeans: 'init' must be float16, .* got torch.int64"),
        (lambda x: kmeans(x, 2, init=torch.nested.nested_tensor([x])), TypeError, r"kmeans: 'init' must be a dense"),
        (lambda x: kmeans(x, 2, init=x[:3]), ValueError, r"'init' must have shape \(\.\.\., 2, 3\) .* got \(3, 3\)"),
        (lambda x: kmeans(x, 2, init=x[:2, :2]), ValueError, r"kmeans: 'init' must have x's 3 columns, got 2"),
        (lambda x: kmeans(x, 2, init=x[:2].expand(4, 2, 3)), ValueError, r"'init' must have x's leading dimensions"),
        (lambda x: kmeans(x, 2, init=x[:2].to("meta")), ValueError, r"'init' must be on x's device cpu, got meta"),
        (lambda x: kmeans(x, 2, init=x[:2], n_init=3), ValueError, r"'n_init' must be 1 when 'init' is a tensor"),
        (lambda x: kmeans(x, 2, init=x[:2] * math.nan), ValueError, r"kmeans: 'init' must be finite, .* row 0"),
        (lambda x: kmeans(x, 2, max_iter=-1), ValueError, r"kmeans: 'max_iter' must be at least 0, got -1"),
        (
            lambda x: kmeans(x, 2, max_iter=2**70),
            ValueError,
            r"kmeans: 'max_iter' must be at most 2147483647, got 11805",
        ),
        (
            lambda x: kmeans(x * 1e30, 2),
            ValueError,
            r"'x' must have squared distances that torch.float32 can .* 2.6e\+31",
        ),
        (
            lambda x: kmeans(x * 1e-27, 2),
            ValueError,
            r"'x' must have squared distances that torch.float32 can .* 2.6e-26",
        ),
        (lambda x: kmeans(x.double() * 1e-170, 2), ValueError, r"squared distances that torch.float64 can .* 2.6e-169"),
        (lambda x: kmeans(x, 2, sample_weight=[1.0]), TypeError, r"'sample_weight' must be a torch.Tensor, got list"),
        (lambda x: kmeans(x, 2, sample_weight=x[0]), ValueError, r"a weight for every point, shape \(9,\), got \(3,\)"),
        (lambda x: kmeans(x, 2, sample_weight=-x[:, 0]), ValueError, r"'sample_weight' must be at least 0 .* got -3"),
        (lambda x: kmeans(x, 2, sample_weight=nan_at(2)[:, 1]), ValueError, r"at least 0 and below 1e300, got nan"),
        (lambda x: kmeans(x, 2, sample_weight=torch.zeros(9)), ValueError, r"'sample_weight' must have a weight above"),
        (lambda x: kmeans(x, 2, sample_weight=x[:, 0].to("meta")), ValueError, r"must be on x's device cpu, got meta"),
        (lambda x: kmeans(x, 2, n_init=0), ValueError, r"kmeans: 'n_init' must be at least 1, got 0"),
        (lambda x: kmeans(x, 2, tol=-1e-3), ValueError, r"kmeans: 'tol' must be at least 0, got -0.001"),
        (lambda x: kmeans(x, 2, tol=math.nan), ValueError, r"kmeans: 'tol' must be finite, got nan"),
        (lambda x: kmeans(x, 2, empty="drop"), ValueError, r"kmeans: 'empty' must be one of 'split', .* got 'drop'"),
        (
            lambda x: kmeans(x, 2, empty=np.array(["split", "keep"])),
            ValueError,
            r"kmeans: 'empty' must be one of 'split'",
        ),
        (lambda x: kmeans(x, 2, spherical=1), TypeError, r"kmeans: 'spherical' must be True or False, got 1"),
        (lambda x: kmeans(x, 2, seed=0.5), TypeError, r"kmeans: 'seed' must be a whole number, got 0.5"),
        (lambda x: kmeans(nan_at(5), 2), ValueError, r"kmeans: 'x' must be finite, got NaN or infinity in row 5; drop"),
        (lambda x: kmeans(nan_at(5), 2, init="random"), ValueError, r"kmeans: 'x' must be finite, .* row 5"),
        (lambda x: kmeans(x + math.inf, 2), ValueError, r"kmeans: 'x' must be finite, got NaN or infinity in row 0"),
        (lambda x: kmeans(nan_at(2), 2, spherical=True), ValueError, r"kmeans: 'x' must be finite"),
        (lambda x: kmeans_assign(nan_at(8), x), ValueError, r"kmeans_assign: 'x' must be finite, .* row 8"),
        (lambda x: kmeans_assign(x, nan_at(1)), ValueError, r"kmeans_assign: 'centroids' must be finite, .* row 1"),
        (lambda x: kmeans_assign(x, x[:0]), ValueError, r"kmeans_assign: 'centroids' must have shape .* K >= 1"),
        (lambda x: kmeans_assign(x, x[:, 0]), ValueError, r"kmeans_assign: 'centroids' must have shape"),
        (
            lambda x: kmeans_assign(x.expand(2, 9, 3), x.expand(3, 9, 3)),
            ValueError,
            r"kmeans_assign: 'centroids' must have leading dimensions that broadcast",
        ),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.arange(27.0).view(9, 3))


def test_tiny_values_that_are_equal_or_fit_are_no_error(generator):
    assert kmeans(torch.full((9, 3), 1e-30), 2).inertia.item() == 0
    assert kmeans(torch.randn(50, 3, generator=generator) * 1e-18, 3).labels.unique().numel() == 3
    assert kmeans(torch.randn(50, 3, generator=generator).bfloat16(), 50).inertia.item() == 0


def test_records_grow(generator, monkeypatch):
    """The same run for any first length of the record, and a bound that is not reached costs nothing."""
    x = torch.stack([points(generator, 400, 3), points(generator, 400, 3, clusters=40)])
    want = kmeans(x, 9, max_iter=100, n_init=3, seed=4)
    assert want.n_iter.max() > 4
    for first in (1, 2, 5):
        monkeypatch.setattr(_kmeans, "_RECORD", first)
        got = kmeans(x, 9, max_iter=2**31 - 1, n_init=3, seed=4)
        assert torch.equal(got.centroids, want.centroids)
        assert torch.equal(got.n_iter, want.n_iter)
        assert same(got.history, want.history)


def weights_for(generator, *sizes):
    """Some 0, some alike, some far apart."""
    return torch.rand(*sizes, generator=generator).square() * torch.randint(3, sizes, generator=generator) * 7


@pytest.mark.parametrize("rule", EMPTY)
@pytest.mark.parametrize("spherical", [False, True])
def test_weights_match_the_reference(rule, spherical, generator):
    x = points(generator, 200, 6)
    weights = weights_for(generator, 200)
    start = torch.cat([x[:9], x[:4] + 50])
    exact = reference.kmeans(x, start, empty=rule, spherical=spherical, sample_weight=weights)
    result = kmeans(x, 13, init=start, empty=rule, spherical=spherical, sample_weight=weights)
    torch.testing.assert_close(result.centroids, exact[0], rtol=1e-9, atol=1e-9)
    assert torch.equal(result.labels, exact[1])
    assert result.inertia.item() == pytest.approx(exact[2].item(), rel=1e-9)
    if not spherical:  # where rounding may move a centroid once more
        assert result.n_iter.item() == exact[3]
    for record, (objective, moved, empty, imbalance) in zip(result.history, exact[4], strict=not spherical):
        assert record.objective.item() == pytest.approx(objective, rel=1e-9)
        assert (record.moved.item(), record.empty.item()) == (pytest.approx(moved), empty)
        assert record.imbalance.item() == pytest.approx(imbalance)


@pytest.mark.parametrize("init", INIT)
def test_weights_of_one_power_of_two_change_no_bit(init, generator):
    x = points(generator, 300, 7).float()
    plain = kmeans(x, 8, init=x[:8] if init == "random" else init)
    for weight in (1.0, 0.25, 2.0**40):
        result = kmeans(x, 8, init=x[:8], sample_weight=torch.full((300,), weight))
        want = kmeans(x, 8, init=x[:8])
        assert torch.equal(result.centroids, want.centroids)
        assert torch.equal(result.labels, want.labels)
        assert result.inertia.item() == pytest.approx(weight * want.inertia.item(), rel=1e-6)
    assert plain.inertia > 0


def test_whole_weights_are_copies_and_0_is_absence(generator):
    x = points(generator, 300, 5)
    counts = torch.randint(4, (300,), generator=generator)
    start = x[counts > 0][:7]
    result = kmeans(x, 7, init=start, sample_weight=counts.double(), empty="keep")
    repeated = kmeans(x.repeat_interleave(counts, 0), 7, init=start, empty="keep")
    torch.testing.assert_close(result.centroids, repeated.centroids, rtol=1e-12, atol=1e-12)
    assert torch.equal(result.labels.repeat_interleave(counts), repeated.labels)
    assert result.inertia.item() == pytest.approx(repeated.inertia.item(), rel=1e-12)
    assert result.n_iter.item() == repeated.n_iter.item()
    nearest = kmeans_assign(x, result.centroids)
    assert torch.equal(result.labels, nearest.labels)  # a point of weight 0 has a label


def test_weights_batched_threads_and_far_apart(generator, threads):
    x = points(generator, 2, 700, 70).float()
    weights = torch.stack([weights_for(generator, 700), 2.0 ** -torch.arange(700.0).remainder(60)])
    want = kmeans(x, 9, sample_weight=weights, seed=3)
    for count in (1, 3):
        threads(count)
        again = kmeans(x, 9, sample_weight=weights.double().t().contiguous().t(), seed=3)
        assert torch.equal(again.centroids, want.centroids)
        assert torch.equal(again.labels, want.labels)
    alone = kmeans(x[0], 9, sample_weight=weights[0], seed=3)
    assert torch.equal(alone.centroids, want.centroids[0])
    assert torch.equal(alone.history[0].objective, want.history[0].objective[0])


def test_a_cluster_of_points_without_weight_is_empty():
    x = torch.tensor([[0.0], [1.0], [5.0], [9.0], [9.5]])
    weights = torch.tensor([1.0, 1.0, 3.0, 0.0, 0.0])
    start = torch.tensor([[1.0], [9.0]])
    kept = kmeans(x, 2, init=start, sample_weight=weights, empty="keep", max_iter=1)
    assert kept.centroids.tolist() == [[pytest.approx(16 / 5)], [9.0]]
    assert kept.history[0].empty.item() == 1
    for rule in ("split", "farthest"):  # the farthest that counts is 5
        result = kmeans(x, 2, init=start, sample_weight=weights, empty=rule, max_iter=1)
        assert result.centroids.tolist() == [[0.5], [5.0]]


@pytest.mark.parametrize("init", INIT)
def test_points_of_weight_0_start_nothing_while_others_are_left(init, generator):
    x = points(generator, 60, 3)
    weights = (torch.arange(60) % 3 == 0).double()
    for seed in range(10):
        drawn = kmeans(x, 20, init=init, sample_weight=weights, max_iter=0, seed=seed).centroids
        assert sorted(drawn.tolist()) == sorted(x[::3].tolist())
    drawn = kmeans(x, 25, init=init, sample_weight=weights, max_iter=0).centroids
    assert len(drawn.unique(dim=0)) == 25
    equal = kmeans(torch.ones(30, 2), 12, init=init, sample_weight=weights[:30], max_iter=2)
    assert equal.inertia.item() == 0


def test_of_copies_those_with_weight_are_drawn_first():
    """No squared distance is left to draw by: any other point that counts, then any other."""
    x, weights = torch.ones(30, 2), (torch.arange(30) % 3 == 0).double()
    for seed in range(10):
        drawn = torch.ops.deepclust.kmeans_plusplus(x, 12, seed, weights)
        assert sorted(drawn[:10].tolist()) == list(range(0, 30, 3))
        assert len(drawn.unique()) == 12


def test_kmeans_starts_from_the_draws_by_weight(generator):
    x, weights = points(generator, 500, 3), weights_for(generator, 500).double()
    for seed in range(5):
        drawn = torch.ops.deepclust.kmeans_plusplus(x, 9, seed, weights / 16)
        assert torch.equal(kmeans(x, 9, sample_weight=weights, max_iter=0, seed=seed).centroids, x[drawn])


def test_draws_by_weight_stay_exact_where_they_are_stale():
    """As without weights: the fourth seed is drawn while those before it are not counted in yet."""
    near = torch.tensor([[0.0], [1.0], [100.0], [101.0], [102.0], [200.0], [201.0]])
    weights = torch.tensor([4.0, 1.0, 2.0, 1.0, 3.0, 1.0, 8.0], dtype=torch.float64) / 8
    drawn, expected = torch.zeros(7), torch.zeros(7)
    for seed in range(6000):
        *before, fourth = torch.ops.deepclust.kmeans_plusplus(near, 4, seed, weights).tolist()
        drawn[fourth] += 1
        mass = weights.float() * (near - near[before].T).square().amin(1)
        expected += mass / mass.sum()
    torch.testing.assert_close(drawn / 6000, expected / 6000, rtol=0, atol=0.02)


def test_draws_follow_the_weights():
    """The first by weight: 1 to 3. Of 1 and 3 after 0, by weight times squared distance: 2 * 1 to 1 * 9."""
    x, weights = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 2
    first, second, random = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    for seed in range(4000):
        one, two = torch.ops.deepclust.kmeans_plusplus(x, 2, seed, weights).tolist()
        first[one] += 1
        if one == 0:
            second[two] += 1
        given = kmeans(x, 1, init="random", sample_weight=weights, max_iter=0, seed=seed).centroids
        random[int((x == given).nonzero()[0, 0])] += 1
    torch.testing.assert_close(first / 4000, torch.tensor([0.25, 0.5, 0.25]), rtol=0, atol=0.025)
    torch.testing.assert_close(random / 4000, torch.tensor([0.25, 0.5, 0.25]), rtol=0, atol=0.025)
    torch.testing.assert_close(second / second.sum(), torch.tensor([0.0, 2 / 11, 9 / 11]), rtol=0, atol=0.04)


def test_raw_ops_refuse_weights_that_are_not_scaled():
    x = torch.zeros(9, 3)
    for weights in (torch.full((9,), 2.0), -torch.ones(9), torch.full((9,), math.nan)):
        with pytest.raises(RuntimeError, match="kmeans: 'sample_weight' must be between 0 and 1"):
            torch.ops.deepclust.kmeans(x, None, 2, 0, 4, 0.0, 0, False, weights.double())
    with pytest.raises(RuntimeError, match="'sample_weight' must be a float64 tensor with a weight for every row"):
        torch.ops.deepclust.kmeans_plusplus(x, 2, 0, torch.ones(9))


def test_raw_ops_refuse_no_centroids():
    x = torch.zeros(9, 3)
    with pytest.raises(RuntimeError, match="kmeans_assign: 'centroids' must have between 1 and"):
        torch.ops.deepclust.kmeans_assign(x, x[:0])
    with pytest.raises(RuntimeError, match=r"kmeans: '(centroids|n_clusters)' must"):
        torch.ops.deepclust.kmeans(x, x[:0], 2, 0, 4, 0.0, 0, False)


def test_nothing_of_size_n_k_is_allocated():
    """An N x K matrix would be 400 MB here, a float copy of x 26 MB."""
    code = """
import resource, torch, deepclust_ext
torch.set_num_threads(2)
x = torch.randn(100_000, 64)
start = x[:1000].clone()
deepclust_ext.kmeans(x[:2000], 10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
deepclust_ext.kmeans(x, 1000, init=start, max_iter=2)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(output) < 60


def test_a_great_max_iter_takes_no_memory():
    """Records of 10^8 iterations would be 3.2 GB."""
    code = """
import torch, deepclust_ext
from support.fuzz import limit_memory
torch.set_num_threads(1)
limit_memory(200 * 2**20)
x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
found, usual = (deepclust_ext.kmeans(x, 5, seed=0, max_iter=most) for most in (10**8, 100))
print(torch.equal(found.labels, usual.labels), len(found.history) == len(usual.history) < 100)
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert ended.stdout == "True True\n", ended.stderr[-2000:]
