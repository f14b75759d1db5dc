"""kmeans over ranks: the bits of one rank on all points, but for the objective, which agrees to rounding."""

import pytest
import torch
from support.ranks import LAYOUTS, bounds

from deepclust_ext import kmeans


def blobs(n, d=7, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(9, d, generator=generator)
    return (centres[torch.randint(9, (n,), generator=generator)] + torch.randn(n, d, generator=generator)).to(dtype)


def shard(group, rank, x, clusters, spans, options):
    begin, end = spans[rank]
    if options.get("sample_weight") is not None:
        options = {**options, "sample_weight": options["sample_weight"][..., begin:end]}
    return kmeans(x[..., begin:end, :], clusters, group=group, **options)


def check(ranks, world, cut, x, clusters, **options):
    whole = kmeans(x, clusters, **options)
    spans = bounds(x.shape[-2], world, cut)
    for (begin, end), own in zip(spans, ranks(world, shard, x, clusters, spans, options), strict=True):
        assert torch.equal(own.labels, whole.labels[..., begin:end])
        for name in ("centroids", "inertia", "n_iter", "n_empty"):
            assert torch.equal(getattr(own, name), getattr(whole, name)), name
            assert getattr(own, name).dtype == getattr(whole, name).dtype
        assert len(own.history) == len(whole.history)
        for a, b in zip(own.history, whole.history, strict=True):
            assert torch.equal(a.moved, b.moved)
            assert torch.equal(a.empty, b.empty)
            assert torch.equal(a.imbalance, b.imbalance)
            torch.testing.assert_close(a.objective, b.objective, rtol=1e-11, atol=1e-11)
    return whole


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
def test_the_bits_of_one_rank(ranks, world, cut):
    # Blocks of 256 rows for the mean, and of 1,024 for k-means++, lie on two ranks.
    check(ranks, world, cut, blobs(2700), 40)


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
def test_with_weights(ranks, world, cut):
    weights = torch.rand(1300, generator=torch.Generator().manual_seed(1))
    weights[::5] = 0.0
    check(ranks, world, cut, blobs(1300), 12, sample_weight=3 * weights)


@pytest.mark.parametrize(
    "options",
    [
        {"init": "random"},
        {"spherical": True},
        {"tol": 0.01},
        {"n_init": 3, "seed": 5},
        {"max_iter": 0},
        {"max_iter": 3},
        {"seed": -7},
    ],
    ids=str,
)
def test_options(ranks, options):
    check(ranks, 3, "uneven", blobs(700), 15, **options)


def test_random_starts_by_weight(ranks):
    weights = torch.rand(300, generator=torch.Generator().manual_seed(1)).where(torch.arange(300) % 3 > 0, 0.0)
    check(ranks, 3, "an empty first", blobs(300), 8, init="random", sample_weight=weights, n_init=2)


def test_given_centroids(ranks):
    x = blobs(400)
    check(ranks, 2, "uneven", x, 5, init=x[:5].clone())
    check(ranks, 2, "one has all", x, 5, init=x[:5].double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype(ranks, dtype):
    check(ranks, 3, "even", blobs(600, d=33, dtype=dtype), 10)


@pytest.mark.parametrize("rule", ["split", "farthest", "keep"])
def test_empty_clusters(ranks, rule):
    x = blobs(500)
    far = 100 + torch.randn(6, 7, generator=torch.Generator().manual_seed(2))
    weights = torch.rand(500, generator=torch.Generator().manual_seed(1))
    for options in ({}, {"sample_weight": weights}):
        whole = check(ranks, 3, "uneven", x, 12, init=torch.cat([x[:6], far]), empty=rule, **options)
        assert whole.n_empty > 0


def test_fewer_different_points_than_clusters(ranks):
    x = torch.arange(4.0).repeat(9).view(36, 1)
    whole = check(ranks, 3, "uneven", x, 7)
    assert whole.n_empty > 0
    check(ranks, 3, "even", x, 36)
    check(ranks, 3, "even", x, 7, sample_weight=(torch.arange(36) > 20).float())
    check(ranks, 2, "even", torch.ones(10, 2), 3)
    check(ranks, 3, "even", torch.ones(2, 2), 1)


def test_batches(ranks):
    x = torch.stack([blobs(300), blobs(300, seed=1), torch.ones(300, 7)])
    check(ranks, 2, "uneven", x, 6)
    check(ranks, 2, "uneven", x, 6, init="random", n_init=2)


def test_far_from_the_origin(ranks):
    check(ranks, 3, "uneven", blobs(900) + 1e4, 20)


def test_one_point_far_from_all(ranks):
    x = blobs(3000)
    x[1234] = 1e6
    check(ranks, 3, "even", x, 30)


# Wrong use on one rank is an error on all.


def wrong(group, rank, kind):
    x, clusters, options = blobs(40), 5, {}
    if rank == 1:
        if kind == "columns":
            x = x[:, :3]
        elif kind == "dtype":
            x = x.double()
        elif kind == "nan":
            x[7, 1] = float("nan")
        elif kind == "clusters":
            clusters = 6
        elif kind == "init":
            options = {"init": x[:5] + 1}
        elif kind == "weights":
            options = {"sample_weight": torch.ones(40)}
        elif kind == "negative":
            options = {"sample_weight": -torch.ones(40)}
        elif kind == "seed":
            options = {"seed": 1}
        elif kind == "empty":
            options = {"empty": "no"}
    elif kind == "init":
        options = {"init": x[:5]}
    if kind == "too many":
        clusters = 81
    if kind == "no weight":
        options = {"sample_weight": torch.zeros(40)}
    if kind == "huge":
        x *= 1e30
    return kmeans(x, clusters, group=group, **options)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("columns", "'x' must be the same on every rank, got shape (n, 7) float32 on cpu on rank 0 and shape (n, 3)"),
        ("dtype", "'x' must be the same on every rank, got shape (n, 7) float32 on cpu on rank 0 and shape (n, 7)"),
        ("nan", "'x' must be finite, got NaN or infinity in row 7; drop or mend such rows (on rank 1)"),
        ("clusters", "'n_clusters' must be the same on every rank, got 5 on rank 0 and 6 on rank 1"),
        ("init", "'init' must be the same on every rank, got shape (5, 7) float32 on cpu of digest "),
        ("weights", "'sample_weight' must be the same on every rank, got False on rank 0 and True on rank 1"),
        ("negative", "'sample_weight' must be at least 0 and below 1e300, got -1 (on rank 1)"),
        ("no weight", "'sample_weight' must have a weight above 0 in every matrix, got zeros alone"),
        ("seed", "'seed' must be the same on every rank, got 0 on rank 0 and 1 on rank 1"),
        ("empty", "'empty' must be one of 'split', 'farthest', 'keep', got 'no' (on rank 1)"),
        ("too many", "'n_clusters' must be at most the number of points, 80, got 81"),
        ("huge", "'x' must have squared distances that torch.float32 can sum"),
    ],
)
def test_wrong_use_on_one_rank_is_the_same_error_on_every_rank(ranks, kind, words):
    found = ranks.errors(2, wrong, kind)
    assert found[0] == found[1]
    assert found[0][0] == "ValueError"
    assert found[0][1].startswith("kmeans: ")
    assert words in found[0][1]
