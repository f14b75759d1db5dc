"""agglomerate: equal to a computation from scratch after every merge, its ends, its edges, its errors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from support.graphs import random_graph, random_labels

from deepclust_ext import affinity_graph, agglomerate, reference

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
