"""k-NN where most of the rows lies in a few directions: the filter multiplies those alone, and the result is exact.

Fewer than 1,024 queries look for no subspace, so that pieces of the rows are searched without one.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepclust_ext import knn

N, D, K = 4800, 256, 9
METRICS = ("euclidean", "cosine", "inner")


def few_directions(generator: torch.Generator, noise: float = 0.05, n: int = N) -> Tensor:
    """Points about a plane of 24 dimensions, turned."""
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
    spread = torch.cat([torch.ones(24), torch.full((D - 24,), noise)])
    return (torch.randn(n, D, generator=generator) * spread) @ turn


def in_pieces(x: Tensor, query: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    found = [knn(x, query=piece, k=k, metric=metric) for piece in query.split(1000)]
    return torch.cat([values for values, _ in found]), torch.cat([indices for _, indices in found])


def equal(x: Tensor, query: Tensor, metric: str = "euclidean", k: int = K) -> None:
    for found, expected in zip(knn(x, query=query, k=k, metric=metric), in_pieces(x, query, k, metric), strict=True):
        assert torch.equal(found, expected)


def graph_equal(x: Tensor, metric: str = "euclidean", k: int = K) -> None:
    """Of each row of the graph: what the row as a query finds, less itself."""
    values, indices = in_pieces(x, x, k + 1, metric)
    own = indices == torch.arange(len(x)).unsqueeze(1)
    # Not among the nearest to itself, as by inner products: then the last is one too many.
    own[:, -1] |= ~own.any(1)
    found = knn(x, k=k, metric=metric)
    assert torch.equal(found[0], values[~own].view(-1, k))
    assert torch.equal(found[1], indices[~own].view(-1, k))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_graph_and_queries_are_those_of_all_dimensions(dtype, metric, generator):
    x = few_directions(generator).to(dtype)
    graph_equal(x, metric)
    equal(x, few_directions(generator, n=1100).to(dtype), metric)


@pytest.mark.parametrize("k", [1, 200])
def test_any_k(k, generator):
    x = few_directions(generator)
    graph_equal(x, k=k)
    equal(x, x[:1100] + 0.01, k=k)


def test_what_is_outside_of_the_directions_decides(generator):
    # Twenty rows at each place of the plane, which differ in the length of what is outside alone: there the bound is
    # the distance itself.
    place = torch.arange(N) // 20
    plane = few_directions(generator, 0.0)
    basis = torch.linalg.qr(plane.T)[0][:, :24]
    along = torch.randn(N // 20, D, generator=generator)
    along = torch.nn.functional.normalize(along - along @ basis @ basis.T)
    graph_equal(plane[place] + (0.5 + 4 * torch.rand(N, 1, generator=generator)) * along[place])


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_clusters_in_any_order(order, generator):
    centers = 3 * few_directions(generator, n=12)
    x = few_directions(generator)
    labels = torch.arange(N) * 12 // N
    if order == "shuffled":
        labels = labels[torch.randperm(N, generator=generator)]
    graph_equal(x + centers[labels])


def test_ties_go_to_the_lowest_index(generator):
    # Whole numbers: every distance is met by many, exactly; and each row has three copies.
    x = torch.zeros(N, D)
    x[:, ::11] = torch.randint(0, 3, (N, 24), generator=generator).float()
    graph_equal(x, k=30)
    equal(x, x[:1100], k=30)
    graph_equal(x[torch.arange(N) // 4], k=30)


# With 1e-18 most squares are below the smallest normal number, which takes Intel's a hundred times as long.
@pytest.mark.parametrize("scale", [1e-17, 1e-3, 1e15])
def test_any_size_of_values(scale, generator):
    graph_equal(few_directions(generator) * scale)


def test_far_from_the_origin_and_with_a_few_rows_far_from_the_rest(generator):
    x = few_directions(generator) + 100.0
    graph_equal(x)
    x[::600] *= 50
    graph_equal(x)


def test_rows_that_queries_have_nothing_in_common_with(generator):
    # Queries vary along other directions than the rows.
    equal(few_directions(generator), few_directions(generator, n=1500))


@pytest.mark.parametrize("threads", [2, 3])
def test_the_bits_do_not_depend_on_threads(threads, generator):
    x = few_directions(generator)
    before = torch.get_num_threads()
    expected = knn(x, k=K)
    torch.set_num_threads(threads)
    try:
        found = knn(x, k=K)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_batches_and_rows_apart(generator):
    x = torch.stack([few_directions(generator), few_directions(generator)])
    wide = torch.randn(2, N, 2 * D, generator=generator)
    wide[..., :D] = x
    for found, expected in zip(knn(wide[..., :D], k=K), knn(x, k=K), strict=True):
        assert torch.equal(found, expected)
    graph_equal(x[1])
