"""affinity_graph and initial_clusters: reference, layouts, threads, edges, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.library import opcheck

from deepclust_ext import affinity_graph, initial_clusters, reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d", "k", "a"), [(2, 1, 1, 1.0), (31, 5, 4, 0.3), (257, 17, 20, 1.0), (53, 3, 52, 7.0)])
def test_matches_reference(n, d, k, a, dtype, generator):
    x = torch.randn(n, d, generator=generator).to(dtype)
    graph = affinity_graph(x, k, a=a)
    indices, weights, sigma2 = reference.affinity_graph(x.double(), k, a=a)
    if dtype in (torch.float32, torch.float64):
        assert torch.equal(graph.indices, indices)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert graph.sigma2.item() == pytest.approx(sigma2.item(), rel=tolerance)
    assert graph.sigma2.dtype == graph.weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # An exponent is rounded before its exponential is taken.
    torch.testing.assert_close(graph.weights.double(), weights, rtol=0, atol=tolerance)
    assert graph.weights.shape == graph.indices.shape == (n, k)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_points_have_weight_one(dtype):
    graph = affinity_graph(torch.full((7, 3), 2.5, dtype=dtype), 3)
    assert graph.sigma2.item() == 0
    assert (graph.weights == 1).all()
    assert (graph.indices != torch.arange(7)[:, None]).all()


def test_strides_threads_and_the_input(generator, threads):
    x = torch.randn(3001, 6, generator=generator)
    want, kept = affinity_graph(x, 9), x.clone()
    for count in (1, 2, 5):
        threads(count)
        assert all(torch.equal(a, b) for a, b in zip(affinity_graph(x, 9), want, strict=True))
    for other in (x.T.contiguous().T, torch.stack([x, x + 1], dim=-1)[..., 0], x.clone().requires_grad_()):
        got = affinity_graph(other, 9)
        assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(got, want, strict=True))
    assert torch.equal(x, kept)


def test_distances_beyond_their_dtype_are_refused(generator):
    x = torch.randn(50, 4, generator=generator)
    for scale in (1e19, 1e25):
        with pytest.raises(ValueError, match=r"affinity_graph: 'x' must have squared distances that torch.float32 can"):
            affinity_graph(x * scale, 3)
    assert affinity_graph(x.double() * 1e25, 3).weights.isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, r"affinity_graph: 'x' must be a torch.Tensor, got list"),
        ({"x": torch.ones(3, 2, dtype=torch.int64)}, TypeError, r"affinity_graph: 'x' must be float16"),
        ({"x": torch.ones(3)}, ValueError, r"affinity_graph: 'x' must have shape \(n, d\) with n >= 2"),
        ({"x": torch.ones(1, 2)}, ValueError, r"affinity_graph: 'x' must have shape"),
        ({"x": torch.ones(5, 0)}, ValueError, r"affinity_graph: 'x' must have shape"),
        (
            {"x": torch.tensor([[0.0], [math.nan], [1.0], [2.0]])},
            ValueError,
            r"affinity_graph: 'x' must be finite.*row 1",
        ),
        ({"k": 0}, ValueError, r"affinity_graph: 'k' must be at least 1, got 0"),
        ({"k": 5}, ValueError, r"affinity_graph: 'k' must be at most 4, got 5"),
        ({"k": 2.0}, TypeError, r"affinity_graph: 'k' must be a whole number, got 2.0"),
        ({"a": 0}, ValueError, r"affinity_graph: 'a' must be finite and above 0, got 0"),
        ({"a": math.inf}, ValueError, r"affinity_graph: 'a' must be finite and above 0, got inf"),
    ],
    ids=str,
)
def test_errors_of_the_graph(change, error, message):
    with pytest.raises(error, match=message):
        affinity_graph(**({"x": torch.arange(10.0).view(5, 2), "k": 2} | change))


def test_raw_op(generator):
    distances = torch.rand(40, 3, generator=generator)
    op = torch.ops.deepclust.affinity_weights.default
    opcheck(op, (distances, 0.5))
    opcheck(op, (distances.T.double(), 2.0))
    for wrong in (distances.half(), distances.long(), distances[0], distances - 1, distances / 0):
        with pytest.raises(RuntimeError, match=r"affinity_weights: 'squared_distances' must be"):
            op(wrong, 1.0)
    with pytest.raises(RuntimeError, match=r"affinity_weights: 'a' must be"):
        op(distances, 0.0)
    weights, sigma2 = op(distances[:0], 1.0)
    assert weights.shape == (0, 3)
    assert sigma2 == 0


# First clusters


@pytest.mark.parametrize("seed", range(20))
def test_are_the_weak_components(seed):
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(1, 400, (), generator=generator))
    indices = torch.randint(0, n, (n, 1 + seed % 3), generator=generator)
    labels = initial_clusters(indices)
    ones = np.ones(n)
    graph = scipy.sparse.csr_array((ones, (np.arange(n), indices[:, 0].numpy())), shape=(n, n))
    count, components = scipy.sparse.csgraph.connected_components(graph, connection="weak")
    # The same partition, numbered by first member.
    _, first = np.unique(components, return_index=True)
    number = np.empty(count, dtype=np.int64)
    number[np.argsort(first)] = np.arange(count)
    assert np.array_equal(labels.numpy(), number[components])
    assert torch.equal(labels, reference.initial_clusters(indices))


def test_chains_have_no_largest_length():
    n = 10_000
    chain = torch.arange(1, n + 1).clamp(max=n - 1)[:, None]
    assert (initial_clusters(chain) == 0).all()
    assert (initial_clusters(chain.flip(0).sub(n - 1).abs()) == 0).all()
    assert torch.equal(initial_clusters(torch.arange(5)[:, None]), torch.arange(5))  # everyone alone
    assert initial_clusters(torch.empty(0, 3, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([[0]], TypeError, r"initial_clusters: 'indices' must be an int64 tensor, got list"),
        (torch.zeros(3, 2), TypeError, r"initial_clusters: 'indices' must be an int64 tensor, got torch.float32"),
        (torch.zeros(3, dtype=torch.int64), ValueError, r"initial_clusters: 'indices' must have shape \(n, k\)"),
        (torch.zeros(3, 0, dtype=torch.int64), ValueError, r"initial_clusters: 'indices' must have shape"),
        (torch.tensor([[0], [2]]), ValueError, r"'indices' must be between 0 and n - 1 = 1, got 2 in row 1"),
        (torch.tensor([[-1], [0]]), ValueError, r"'indices' must be between 0 and n - 1 = 1, got -1 in row 0"),
    ],
    ids=str,
)
def test_errors_of_the_first_clusters(indices, error, message):
    with pytest.raises(error, match=message):
        initial_clusters(indices)


def test_raw_op_of_the_first_clusters(generator):
    indices = torch.randint(0, 30, (30, 4), generator=generator)
    op = torch.ops.deepclust.initial_clusters.default
    opcheck(op, (indices,))
    assert torch.equal(op(indices.T.contiguous().T), op(indices))
    for wrong in (indices.int(), indices[0], indices[:, :0]):
        with pytest.raises(RuntimeError, match=r"initial_clusters: 'indices' must be"):
            op(wrong)


def test_vmap_is_refused_in_a_sentence():
    with pytest.raises(NotImplementedError, match=r"affinity_graph: torch\.vmap is not supported"):
        torch.func.vmap(lambda x: affinity_graph(x, 2).weights)(torch.randn(3, 5, 2))
    with pytest.raises(NotImplementedError, match=r"initial_clusters: torch\.vmap is not supported"):
        torch.func.vmap(initial_clusters)(torch.zeros(3, 5, 2, dtype=torch.int64))
