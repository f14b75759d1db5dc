"""agglomerate: equal to a computation from scratch after every merge, its ends, its edges, its errors."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.graphs import random_graph, random_labels
from torch.library import opcheck

from deepclust_ext import AffinityGraph, affinity_graph, agglomerate, reference

RULES = list(itertools.product((1, 2, 3, 5), (0.0, 1.0)))


def same_tree(graph, target, labels=None, x=None, **rule):
    result = agglomerate(graph, target, labels=labels, x=x, **rule)
    start = result.initial_labels
    children, affinities = reference.agglomerate(graph.indices, graph.weights, start, target, x=x, **rule)
    assert torch.equal(result.children, children)
    assert torch.equal(result.affinities, affinities)
    assert result.n_clusters == int(start.max()) + 1 - len(children)
    return result


@pytest.mark.parametrize(("kc", "lam"), RULES)
@pytest.mark.parametrize("update", ["exact", "sum", "slide"])
def test_is_the_brute_force_of_the_definition(kc, lam, update):
    """Down to one cluster, or to where no affinity is left, from singletons: the same pairs, the same bits."""
    for seed in range(12):
        generator = torch.Generator().manual_seed(1000 * kc + seed)
        n = int(torch.randint(2, 40, (), generator=generator))
        k = int(torch.randint(1, min(n, 7), (), generator=generator))
        levels = (1024, 16, 2, 1)[seed % 4]  # fewer and fewer: more ties, and edges of weight 0
        graph = random_graph(generator, n, k, levels)
        same_tree(graph, 1, labels=torch.arange(n), kc=kc, lam=lam, update=update)


@pytest.mark.parametrize("update", ["exact", "sum"])
@pytest.mark.parametrize("labelled", [False, True])
def test_from_clusters_of_any_size(update, labelled):
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        n = int(torch.randint(5, 60, (), generator=generator))
        graph = random_graph(generator, n, min(n - 1, 1 + seed % 6), (1024, 4)[seed % 2])
        labels = random_labels(generator, n, max(2, n // 3)) if labelled else None
        same_tree(graph, 1 + seed % 3, labels=labels, kc=1 + seed % 5, lam=float(seed % 3), update=update)


def test_exhausted_graphs_go_on_by_centroids():
    """And back to affinities where a merge has made some."""
    met = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        n = int(torch.randint(4, 40, (), generator=generator))
        graph = random_graph(generator, n, 1 + seed % 2, 1 + seed % 2)
        x = torch.randint(0, 5, (n, 2), generator=generator).double()  # sums without rounding, many equal distances
        result = same_tree(graph, 1, labels=torch.arange(n), x=x, kc=3, lam=float(seed % 2))
        assert len(result.children) == n - 1
        zeros = result.affinities == 0
        met += bool(zeros.any() and zeros[:-1].logical_and(~zeros[1:]).any())
    assert met > 0  # an affinity after a merge by centroids


def whole_number_tree(graph, kc, lam):
    """The merges by brute force on Python's whole numbers, for weights of any kind: what the kernel rounds to 2^-40."""
    n, k = graph.indices.shape
    bits = 40
    weights = np.zeros((n, n), dtype=object)
    for i, e in itertools.product(range(n), range(k)):
        weight = graph.weights[i, e].item()
        weights[i, graph.indices[i, e].item()] += max(1, round(math.ldexp(weight, bits))) if weight > 0 else 0
    clusters, children, affinities = {i: [i] for i in range(n)}, [], []
    nodes = dict(enumerate(range(n)))
    while len(clusters) > 1:
        names = sorted(clusters)
        received = {c: sum(weights[y] for y in clusters[c]) for c in names}
        given = {c: sum(weights[:, y] for y in clusters[c]) for c in names}

        def share(a, c):
            total = sum(int(received[a][v]) * int(given[a][v]) for v in clusters[c])  # noqa: B023
            return math.ldexp(float(total), -2 * bits) / float(len(clusters[a]) ** 2)

        table = {(a, c): 0.0 if a == c else share(a, c) + share(c, a) for a in names for c in names}
        best = None
        for a in names:
            highest = sorted((table[a, c] for c in names if c != a), reverse=True)
            highest = (highest + [0.0] * kc)[:kc]
            gaps = 0.0
            for value in highest[1:]:
                gaps += highest[0] - value
            score = highest[0] + (lam * gaps / (kc - 1) if kc > 1 else 0.0)
            if best is None or score > best[0]:
                best = (score, a, highest[0])
        _, a, value = best
        if value == 0:
            break
        b = next(c for c in names if c != a and table[a, c] == value)
        a, b = sorted((a, b))
        children.append(sorted((nodes[a], nodes[b])))
        affinities.append(value)
        nodes[a] = n + len(children) - 1
        clusters[a] += clusters.pop(b)
    return children, affinities


@pytest.mark.parametrize(("kc", "lam"), [(1, 1.0), (3, 0.0), (5, 1.0), (5, 0.37)])
def test_weights_of_any_kind_are_those_of_whole_numbers(kc, lam):
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        n = 10 + 3 * seed
        x = torch.randn(n, 3, generator=generator)
        x[1::5] = x[0]  # copies
        x[2] += 30  # an outlier, whose weights are tiny
        graph = affinity_graph(x, min(4, n - 1))
        if seed == 5:
            graph = graph._replace(weights=torch.where(graph.weights > 0.5, graph.weights, 1e-30))
        result = agglomerate(graph, 1, labels=torch.arange(n), kc=kc, lam=lam)
        children, affinities = whole_number_tree(graph, kc, lam)
        assert result.children.tolist() == children
        assert result.affinities.tolist() == affinities


# Ends, edges and options


def test_no_more_clusters_than_asked_for_are_left_as_they_are(generator):
    graph = random_graph(generator, 20, 3)
    for count in (7, 8, 100):
        labels = random_labels(generator, 20, 7)
        result = agglomerate(graph, count, labels=labels)
        assert result.n_clusters == 7
        assert torch.equal(result.initial_labels, labels)
        assert result.children.shape == (0, 2)
        assert result.affinities.shape == (0,)
        first = [int((result.labels == c).nonzero()[0]) for c in range(7)]
        assert first == sorted(first)
        assert len(torch.unique(torch.stack([labels, result.labels]), dim=1)[0]) == 7


def test_an_empty_graph_and_a_single_point():
    empty = AffinityGraph(torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2), torch.zeros(()))
    result = agglomerate(empty, 3)
    assert (len(result.labels), result.n_clusters, len(result.children)) == (0, 0, 0)
    alone = AffinityGraph(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1), torch.zeros(()))
    assert agglomerate(alone, 1).labels.tolist() == [0]


def test_without_an_affinity_it_stops_or_goes_by_centroids():
    x = torch.tensor([[0.0], [0.1], [10.0], [10.1], [14.0], [14.1]])
    graph = affinity_graph(x, 1)  # three pairs, no edge between them
    for options in ({}, {"exhausted": "stop"}, {"exhausted": "stop", "x": x}):
        result = agglomerate(graph, 1, **options)
        assert result.n_clusters == 3
        assert result.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for options in ({"x": x}, {"x": x.double(), "exhausted": "nearest_centroid"}, {"x": x.half()}):
        assert agglomerate(graph, 2, **options).labels.tolist() == [0, 0, 1, 1, 1, 1]
        result = agglomerate(graph, 1, **options)
        assert result.children.tolist() == [[1, 2], [0, 3]]
        assert result.affinities.tolist() == [0.0, 0.0]
    with pytest.raises(
        ValueError, match=r"'x' must be given for exhausted='nearest_centroid'; or take exhausted='stop"
    ):
        agglomerate(graph, 2, exhausted="nearest_centroid")


def test_a_stop_above_the_target_says_how_many(generator):
    graph = affinity_graph(torch.randn(50, 2, generator=generator), 2)
    result = agglomerate(graph, 2, min_size=3, small="noise")
    assert result.n_clusters == int(result.labels.max()) + 1 > 2


def test_labels_of_any_numbers_keep_their_order(generator):
    graph = random_graph(generator, 40, 4)
    labels = random_labels(generator, 40, 12)
    want = agglomerate(graph, 3, labels=labels)
    for other in (labels * 7 + 3, labels.int(), labels.to(torch.uint8)):
        assert torch.equal(agglomerate(graph, 3, labels=other).children, want.children)
    two = torch.arange(40) >= 20
    assert agglomerate(graph, 2, labels=two).labels.tolist() == two.long().tolist()


def test_edges_within_points_and_repeated_ones(generator):
    """An edge to itself counts for nothing, two edges for their sum."""
    graph = random_graph(generator, 30, 4, levels=8)
    itself = torch.arange(30)[:, None]
    wider = AffinityGraph(
        torch.cat([itself, graph.indices, graph.indices], 1),
        torch.cat([torch.ones(30, 1), graph.weights / 2, graph.weights / 2], 1),
        graph.sigma2,
    )
    want = agglomerate(graph, 1, labels=torch.arange(30))
    got = agglomerate(wider, 1, labels=torch.arange(30))
    assert torch.equal(got.children, want.children)
    assert torch.equal(got.affinities, want.affinities)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_dtypes_and_strides(dtype, generator):
    graph = random_graph(generator, 50, 5, levels=16)
    want = agglomerate(graph, 2)
    weights = graph.weights.to(dtype)  # sixteenths, in all of them
    other = AffinityGraph(graph.indices.T.contiguous().T, weights.T.contiguous().T, graph.sigma2)
    assert torch.equal(agglomerate(other, 2).children, want.children)
    assert want.affinities.dtype == torch.float64
    assert not agglomerate(other._replace(weights=weights.clone().requires_grad_()), 2).affinities.requires_grad


def test_copies_that_all_have_the_same_neighbours():
    """Ties of distance go to the lowest index, so a few points are everybody's neighbours."""
    x = torch.zeros(2000, 3)
    x[1000:] = 1
    result = agglomerate(affinity_graph(x, 5), 2, x=x)
    assert result.labels.tolist() == [0] * 1000 + [1] * 1000
    singles = agglomerate(affinity_graph(x, 5), 2, x=x, labels=torch.arange(2000))
    assert torch.equal(singles.labels, result.labels)


def test_same_bits_for_threads_and_calls_at_once(generator, threads):
    x = torch.randn(3000, 5, generator=generator)
    graph = affinity_graph(x, 8)
    want = agglomerate(graph, 5, x=x, min_size=20)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: agglomerate(graph, 5, x=x, min_size=20), range(8)):
            assert got.n_clusters == want.n_clusters
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True) if isinstance(a, torch.Tensor))
    threads(1)
    assert torch.equal(agglomerate(graph, 5, x=x, min_size=20).labels, want.labels)


def test_permuting_the_points_permutes_the_labels(generator):
    """Where there are no ties."""
    x = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    order = torch.randperm(300, generator=generator)
    labels = agglomerate(affinity_graph(x, 6), 8, x=x).labels[order]
    permuted = agglomerate(affinity_graph(x[order], 6), 8, x=x[order]).labels
    assert torch.unique(torch.stack([labels, permuted]), dim=1).shape[1] == 8


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"graph": torch.ones(3)}, TypeError, r"agglomerate: 'graph' must be an AffinityGraph, got Tensor"),
        ({"indices": torch.ones(30, 3)}, TypeError, r"agglomerate: 'graph' must be an int64 tensor, got torch.float32"),
        ({"weights": torch.ones(30, 2)}, ValueError, r"agglomerate: 'graph' must have weights of the indices' shape"),
        ({"weights": torch.ones(30, 3).long()}, TypeError, r"agglomerate: 'graph' must be float16"),
        ({"weights": torch.full((30, 3), 1.5)}, ValueError, r"agglomerate: 'graph' must be between 0 and 1, got 1.5"),
        ({"weights": torch.full((30, 3), -1.0)}, ValueError, r"agglomerate: 'graph' must be between 0 and 1, got -1"),
        ({"weights": torch.full((30, 3), math.nan)}, ValueError, r"agglomerate: 'graph' must be between 0 and 1"),
        ({"indices": torch.full((30, 3), 30)}, ValueError, r"agglomerate: 'graph' must be between 0 and n - 1 = 29"),
        ({"n_clusters": 0}, ValueError, r"agglomerate: 'n_clusters' must be at least 1, got 0"),
        ({"n_clusters": 2.0}, TypeError, r"agglomerate: 'n_clusters' must be a whole number"),
        ({"kc": 0}, ValueError, r"agglomerate: 'kc' must be at least 1, got 0"),
        ({"kc": 1001}, ValueError, r"agglomerate: 'kc' must be at most 1000, got 1001"),
        ({"lam": -1}, ValueError, r"agglomerate: 'lam' must be finite and at least 0, got -1"),
        ({"update": "fast"}, ValueError, r"agglomerate: 'update' must be one of 'exact', 'slide', 'sum', got 'fast'"),
        (
            {"exhausted": "x"},
            ValueError,
            r"agglomerate: 'exhausted' must be one of 'nearest_centroid', 'stop', got 'x'",
        ),
        ({"small": "x"}, ValueError, r"agglomerate: 'small' must be one of 'nearest', 'noise', got 'x'"),
        ({"min_size": 31}, ValueError, r"agglomerate: 'min_size' must be at most 30, got 31"),
        ({"min_size": 3}, ValueError, r"agglomerate: 'x' must be given for min_size with small='nearest'"),
        ({"x": torch.ones(29, 2)}, ValueError, r"agglomerate: 'x' must have shape \(30, d\)"),
        ({"x": torch.full((30, 2), math.inf)}, ValueError, r"agglomerate: 'x' must be finite"),
        ({"labels": [0] * 30}, TypeError, r"agglomerate: 'labels' must be a tensor of whole numbers, got list"),
        (
            {"labels": torch.ones(30)},
            TypeError,
            r"agglomerate: 'labels' must be a tensor of whole numbers, got torch.fl",
        ),
        ({"labels": torch.zeros(29).long()}, ValueError, r"agglomerate: 'labels' must have one entry a point"),
        ({"labels": -torch.ones(30).long()}, ValueError, r"agglomerate: 'labels' must be at least 0, got -1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors(change, error, message):
    graph = random_graph(torch.Generator().manual_seed(0), 30, 3)
    for name in ("indices", "weights"):
        if name in change:
            graph = graph._replace(**{name: change.pop(name)})
    with pytest.raises(error, match=message):
        agglomerate(**({"graph": graph, "n_clusters": 3} | change))


def test_raw_op(generator):
    graph = random_graph(generator, 30, 3)
    op = torch.ops.deepclust.agglomerate.default
    labels = random_labels(generator, 30, 9)
    x = torch.randn(30, 2, generator=generator)
    given = [graph.indices, graph.weights, labels, 9, 2, 5, 1.0, 0, x]
    opcheck(op, tuple(given))
    opcheck(op, (*given[:-1], None))
    children, affinities, count = op(*given[:-2], 0, None)
    assert children.shape == (8, 2)
    assert affinities.shape == (8,)
    assert count <= 7
    assert (children[int(count) :] == -1).all()
    wrong = {
        0: (graph.indices.int(), graph.indices[0]),
        1: (graph.weights[1:], graph.weights.long()),
        2: (labels[1:], labels.int(), labels + 1, torch.zeros_like(labels)),
        3: (8, 10, 31),
        4: (0,),
        5: (0,),
        6: (-1.0, math.inf),
        7: (3, -1),
        8: (x[1:], x.half(), x[0]),
    }
    for place, values in wrong.items():
        for value in values:
            with pytest.raises(RuntimeError, match=r"agglomerate: '\w+' must"):
                op(*given[:place], value, *given[place + 1 :])


def test_vmap_is_refused_in_a_sentence(generator):
    graph = random_graph(generator, 30, 3)
    with pytest.raises(NotImplementedError, match=r"agglomerate: torch\.vmap is not supported"):
        torch.func.vmap(lambda w: agglomerate(graph._replace(weights=w), 2).labels)(graph.weights.expand(2, 30, 3))
