"""cut: any count of a tree, sizes, nested merges, errors."""

from __future__ import annotations

import pytest
import torch
from support.graphs import random_graph, random_labels

from deepclust_ext import Agglomeration, affinity_graph, agglomerate, cut


def tree_of(seed: int, n: int = 60) -> tuple[torch.Tensor, Agglomeration]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator) + 3 * torch.randint(0, 3, (n, 1), generator=generator)
    return x, agglomerate(affinity_graph(x, 1 + seed % 5), 1, x=x, lam=float(seed % 2), labels=torch.arange(n))


def by_hand(tree: Agglomeration, merges: int) -> torch.Tensor:
    """Labels after so many merges, one at a time; numbered by first member."""
    node = tree.initial_labels.clone()
    first = int(tree.initial_labels.max()) + 1
    for t, (a, b) in enumerate(tree.children[:merges].tolist()):
        node[(node == a) | (node == b)] = first + t
    seen: dict[int, int] = {}
    return torch.tensor([seen.setdefault(name, len(seen)) for name in node.tolist()], dtype=torch.int64)


def nested(fine: torch.Tensor, coarse: torch.Tensor) -> bool:
    """Whether points together in the first are together in the second."""
    pairs = torch.unique(torch.stack([fine, coarse]), dim=1)
    return pairs.shape[1] == len(torch.unique(fine))


@pytest.mark.parametrize("seed", range(8))
def test_every_count_of_the_tree(seed):
    x, tree = tree_of(seed)
    last = None
    for count in range(60, 0, -1):
        got = cut(tree, count)
        assert got.n_clusters == count == int(got.labels.max()) + 1
        assert torch.equal(got.labels, by_hand(tree, 60 - count))
        assert torch.equal(got.children, tree.children)
        assert last is None or nested(last, got.labels)
        last = got.labels
        if count % 7 == 0:  # stopping there is cutting there, and cuts can be cut again
            stopped = agglomerate(
                affinity_graph(x, 1 + seed % 5), count, x=x, lam=float(seed % 2), labels=torch.arange(60)
            )
            assert torch.equal(stopped.labels, got.labels)
            assert torch.equal(stopped.children, tree.children[: 60 - count])
            assert torch.equal(cut(got, 3).labels, cut(tree, 3).labels)


def literal(tree: Agglomeration, n_clusters: int, min_size: int) -> torch.Tensor | None:
    """The rule as it is written: undo while at most n_clusters are large; None where that never ends at more."""
    first = int(tree.initial_labels.max()) + 1
    merges = first - n_clusters

    def large(merges):
        return int((torch.bincount(by_hand(tree, merges)) >= min_size).sum())

    while merges > 0 and large(merges - 1) <= n_clusters:
        merges -= 1
    return by_hand(tree, merges) if merges > 0 else None


@pytest.mark.parametrize("small", ["nearest", "noise"])
@pytest.mark.parametrize("seed", range(30))
def test_no_cluster_is_below_the_size(seed, small):
    x, tree = tree_of(seed)
    for n_clusters in (1, 2, 3, 5, 9):
        for min_size in (1, 2, 4, 11, 60):
            got = cut(tree, n_clusters, min_size=min_size, small=small, x=x)
            counts = torch.bincount(got.labels[got.labels >= 0])
            assert len(counts) == got.n_clusters <= n_clusters
            assert (counts >= min_size).all()
            assert torch.equal(got.children, tree.children)
            clustered = got.labels >= 0
            assert clustered.all() or small == "noise"
            assert got.n_clusters >= 1 or small == "noise"
            # In the order of first members, and clusters of the tree stay whole.
            names = torch.unique(got.labels[clustered])
            firsts = [int((got.labels == name).nonzero()[0]) for name in names]
            assert firsts == sorted(firsts)
            expected = literal(tree, n_clusters, min_size)
            if expected is not None:
                assert nested(expected, got.labels)
                large = torch.bincount(expected) >= min_size
                assert got.n_clusters == int(large.sum()) == n_clusters
                if small == "noise":
                    assert torch.equal(clustered, large[expected])
                else:
                    centres = torch.stack([x[expected == c].double().mean(0) for c in range(len(large))])
                    for c in (~large).nonzero().flatten().tolist():
                        near = (centres[large] - centres[c]).square().sum(1).argmin()
                        host = large.nonzero().flatten()[near]
                        assert got.labels[expected == c][0] == got.labels[expected == host][0]
            again = agglomerate(
                affinity_graph(x, 1 + seed % 5),
                n_clusters,
                x=x,
                lam=float(seed % 2),
                labels=torch.arange(60),
                min_size=min_size,
                small=small,
            )
            assert torch.equal(again.labels, got.labels)
            assert again.n_clusters == got.n_clusters


def test_tiny_clusters_hold_no_places():
    """Two clusters of 30 and a pair far off: the plain cut at 2 joins the two, for the pair has its place."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(62, 2, generator=generator) * 0.4
    x[30:60] += 4
    x[60:] += 100
    tree = agglomerate(affinity_graph(x, 6), 1, x=x)
    truth = torch.tensor([0] * 30 + [1] * 30)
    plain, sized = cut(tree, 2), cut(tree, 2, min_size=5, x=x)
    assert torch.bincount(plain.labels).tolist() == [60, 2]
    assert torch.equal(sized.labels[:60], truth)
    assert sized.labels[60:].tolist() == [1, 1]
    noise = cut(tree, 2, min_size=5, small="noise").labels
    assert noise[60:].tolist() == [-1, -1]
    assert torch.equal(noise[noise >= 0], truth[noise[:60] >= 0])


def test_a_size_that_no_cluster_has():
    x, _ = tree_of(0)
    stopped = agglomerate(affinity_graph(x, 3), 60, labels=torch.arange(60))
    assert cut(stopped, 60, min_size=2, x=x).labels.unique().tolist() == [0]
    noise = cut(stopped, 60, min_size=2, small="noise")
    assert noise.n_clusters == 0
    assert noise.labels.unique().tolist() == [-1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"result": 3}, TypeError, r"cut: 'result' must be an Agglomeration, got int"),
        ({"n_clusters": 0}, ValueError, r"cut: 'n_clusters' must be in the tree, which has 2 to 10 clusters, got 0"),
        ({"n_clusters": 1}, ValueError, r"cut: 'n_clusters' must be in the tree, which has 2 to 10 clusters, got 1"),
        ({"n_clusters": 11}, ValueError, r"cut: 'n_clusters' must be in the tree, which has 2 to 10 clusters, got 11"),
        ({"n_clusters": 2.0}, TypeError, r"cut: 'n_clusters' must be a whole number"),
        ({"min_size": 0}, ValueError, r"cut: 'min_size' must be at least 1, got 0"),
        ({"min_size": 31}, ValueError, r"cut: 'min_size' must be at most 30, got 31"),
        ({"min_size": 3}, ValueError, r"cut: 'x' must be given for min_size with small='nearest'"),
        ({"small": "drop"}, ValueError, r"cut: 'small' must be one of 'nearest', 'noise', got 'drop'"),
        ({"x": torch.ones(29, 2)}, ValueError, r"cut: 'x' must have shape \(30, d\) with d >= 1, got \(29, 2\)"),
        ({"x": torch.full((30, 2), torch.nan)}, ValueError, r"cut: 'x' must be finite"),
    ],
    ids=str,
)
def test_errors(change, error, message):
    generator = torch.Generator().manual_seed(0)
    graph = random_graph(generator, 30, 3)
    x = torch.randn(30, 2, generator=generator)
    tree = agglomerate(graph, 2, labels=random_labels(generator, 30, 10), x=x)
    with pytest.raises(error, match=message):
        cut(**({"result": tree, "n_clusters": 3} | change))
