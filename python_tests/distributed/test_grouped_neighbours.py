"""knn and affinity_graph over ranks: the bits of one rank on all rows."""

import pytest
import torch
from support.ranks import LAYOUTS, bounds

import deepclust_ext.ops._grouped_knn as grouped_knn
from deepclust_ext import affinity_graph, knn


def points(n, d=13, seed=0, dtype=torch.float32):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    x[n // 2 :] = x[: n - n // 2].clone()  # copies, which tie, on other ranks
    x[::7] = 0.0
    return x.to(dtype)


def search(group, rank, x, query, spans, k, metric, block=None):
    if block is not None:
        grouped_knn._BLOCK_BYTES = block
    begin, end = spans[rank]
    own_query = None if query is None else query[..., rank::3, :]
    result = knn(x[..., begin:end, :], k, query=own_query, metric=metric, group=group)
    grouped_knn._BLOCK_BYTES = 256 << 20
    return result


def check(ranks, world, cut, x, query, k, metric, block=None):
    whole = knn(x, k, query=query, metric=metric)
    spans = bounds(x.shape[-2], world, cut)
    found = ranks(world, search, x, query, spans, k, metric, block)
    for rank, ((begin, end), own) in enumerate(zip(spans, found, strict=True)):
        rows = slice(begin, end) if query is None else slice(rank, None, 3)
        assert torch.equal(own.indices, whole.indices[..., rows, :])
        assert torch.equal(own.values, whole.values[..., rows, :])
        assert own.values.dtype == whole.values.dtype


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner"])
def test_the_graph_is_that_of_one_rank(ranks, world, cut, metric):
    check(ranks, world, cut, points(83), None, 9, metric)


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_queries_stay_on_their_rank(ranks, world, cut, metric):
    check(ranks, world, cut, points(83), points(41, seed=1), 12, metric)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype(ranks, dtype):
    check(ranks, 3, "uneven", points(60, dtype=dtype), None, 5, "euclidean")


def test_k_of_all_points_and_no_queries(ranks):
    check(ranks, 3, "uneven", points(20), None, 19, "euclidean")
    check(ranks, 3, "an empty first", points(20), points(2), 20, "inner")  # the last rank asks nothing


def test_batches_of_points(ranks):
    x = torch.stack([points(30), points(30, seed=3)])
    check(ranks, 2, "uneven", x, None, 4, "euclidean")
    check(ranks, 2, "uneven", x, points(9, seed=4), 4, "cosine")


def test_points_that_come_in_blocks(ranks):
    check(ranks, 3, "even", points(83), None, 9, "euclidean", block=5 * 13 * 4)


def bounded(group, rank, x, query, spans):
    """Blocks of 7 rows on rank 0, of 11 on rank 1, and no bound on the others."""
    original, grouped_knn.rows_of_block = grouped_knn.rows_of_block, lambda *_: 7 + 4 * rank
    begin, end = spans[rank]
    try:
        memory = 1 << 30 if rank < 2 else None
        return [knn(x[begin:end], 9, query=asked, group=group, max_memory=memory) for asked in (None, query)]
    finally:
        grouped_knn.rows_of_block = original


def test_ranks_may_each_have_a_bound_of_memory(ranks):
    x, query = points(83), points(25, seed=1)
    spans = bounds(83, 3, "uneven")
    for (begin, end), (graph, asked) in zip(spans, ranks(3, bounded, x, query, spans), strict=True):
        for found, whole in ((graph, [each[begin:end] for each in knn(x, 9)]), (asked, knn(x, 9, query=query))):
            assert torch.equal(found.values, whole[0])
            assert torch.equal(found.indices, whole[1])


def test_large_values_and_many_points(ranks):
    x = torch.randn(1500, 32, generator=torch.Generator().manual_seed(5)) * 1e4
    check(ranks, 2, "even", x, None, 20, "euclidean")


def graph(group, rank, x, spans, k, a):
    begin, end = spans[rank]
    return affinity_graph(x[begin:end], k, a=a, group=group)


@pytest.mark.parametrize(("world", "cut"), LAYOUTS)
def test_the_affinity_graph_is_that_of_one_rank(ranks, world, cut):
    x = points(83)
    whole = affinity_graph(x, 7, a=0.8)
    spans = bounds(83, world, cut)
    for (begin, end), own in zip(spans, ranks(world, graph, x, spans, 7, 0.8), strict=True):
        assert torch.equal(own.indices, whole.indices[begin:end])
        assert torch.equal(own.weights, whole.weights[begin:end])
        assert torch.equal(own.sigma2, whole.sigma2)


def test_all_points_equal(ranks):
    spans = bounds(9, 3, "even")
    assert all((own.weights == 1).all() and own.sigma2 == 0 for own in ranks(3, graph, torch.ones(9, 2), spans, 3, 1.0))


# Wrong use on one rank is an error on all.


def wrong(group, rank, op, kind):
    x, options = points(12), {"k": 3}
    if rank == 1:
        if kind == "columns":
            x = x[:, :5]
        elif kind == "dtype":
            x = x.double()
        elif kind == "nan":
            x[4, 2] = float("nan")
        elif kind == "k":
            options = {"k": 4}
        elif kind == "query":
            options["query"] = x
        elif kind == "no tensor":
            x = None
    if kind == "too many":
        options = {"k": 24}
    return (knn if op == "knn" else affinity_graph)(x, group=group, **options)


@pytest.mark.parametrize("op", ["knn", "affinity_graph"])
@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("columns", "ValueError", "'x' must be the same on every rank, got shape (n, 13) float32 on cpu on rank 0"),
        ("dtype", "ValueError", "'x' must be the same on every rank, got shape (n, 13) float32 on cpu on rank 0"),
        ("nan", "ValueError", "'x' must be finite, got NaN or infinity in row 4; drop or mend such rows (on rank 1)"),
        ("k", "ValueError", "'k' must be the same on every rank, got 3 on rank 0 and 4 on rank 1"),
        ("query", "ValueError", "knn: 'query' must be the same on every rank, got None on rank 0"),
        ("no tensor", "TypeError", "'x' must be a torch.Tensor, got NoneType (on rank 1)"),
        ("too many", "ValueError", "23, got 24"),
    ],
)
def test_wrong_use_on_one_rank_is_the_same_error_on_every_rank(ranks, op, kind, error, words):
    if (op, kind) == ("affinity_graph", "query"):
        return
    found = ranks.errors(2, wrong, op, kind)
    assert found[0] == found[1]
    assert found[0][0] == error
    assert found[0][1].startswith(f"{op}: ")
    assert words in found[0][1]
