"""cluster.AffinityClustering: scikit-learn's own checks, the tree over rows, new rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cut_tree, dendrogram, is_valid_linkage
from sklearn.base import clone
from sklearn.cluster import AgglomerativeClustering
from sklearn.utils.estimator_checks import check_estimator
from support.opspecs import points

from deepclust_ext import affinity_graph, agglomerate
from deepclust_ext.cluster import AffinityClustering


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"lam": 0.0, "k": 3, "min_size": 2, "update": "sum"}], ids=str)
def test_scikit_learns_checks(options):
    check_estimator(AffinityClustering(3, **options))


def linkage(model: AffinityClustering) -> np.ndarray:
    """scipy's matrix, with the counts as scikit-learn's documentation makes them."""
    n = len(model.labels_)
    counts = np.ones(2 * n - 1)
    for t, (a, b) in enumerate(model.children_):
        counts[n + t] = counts[a] + counts[b]
    return np.column_stack([model.children_, model.distances_, counts[n:]]).astype(float)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_functions(dtype, generator):
    x = points(generator, 300, 4).numpy().astype(dtype)
    model = AffinityClustering(6, k=9, lam=0.5, kc=3).fit(x)
    rows = torch.from_numpy(x)
    result = agglomerate(affinity_graph(rows, 9), 6, x=rows, lam=0.5, kc=3)
    assert np.array_equal(model.labels_, result.labels.numpy())
    assert model.n_clusters_ == result.n_clusters == 6
    means = np.stack([x[model.labels_ == c].mean(0, dtype=np.float64) for c in range(6)])
    np.testing.assert_allclose(model.cluster_centers_, means, rtol=1e-6)
    assert model.cluster_centers_.dtype == dtype
    distances = ((x[:, None] - model.cluster_centers_) ** 2).sum(-1)
    assert np.array_equal(model.predict(x), distances.argmin(1))
    assert np.array_equal(clone(model).fit_predict(x), model.labels_)
    assert np.array_equal(model.fit(x.tolist()).labels_, model.labels_)


@pytest.mark.parametrize("seed", range(5))
def test_the_tree_over_rows(seed):
    generator = torch.Generator().manual_seed(seed)
    x = points(generator, 20 + 31 * seed, 3).numpy()
    model = AffinityClustering(3, k=4).fit(x)
    n = len(x)
    assert model.children_.shape == (n - 1, 2)
    assert model.distances_.shape == (n - 1,)
    assert sorted(model.children_.flatten()) == list(range(2 * n - 2))  # each node is merged once, but for the root
    assert (model.children_.max(1) < n + np.arange(n - 1)).all()
    assert (np.diff(model.distances_) >= 0).all()
    assert (model.distances_ <= 1).all()
    matrix = linkage(model)
    assert is_valid_linkage(matrix)
    assert matrix[-1, 3] == n
    drawn = dendrogram(matrix, no_plot=True)
    assert sorted(drawn["leaves"]) == list(range(n))
    # scipy's own cut of it, where heights do not tie.
    labels = cut_tree(matrix, n_clusters=3).flatten()
    if len(np.unique(model.distances_[-3:])) == 3:
        assert len(np.unique(np.stack([labels, model.labels_]), axis=1)[0]) == 3


def test_chains_come_first_at_height_zero(generator):
    x = points(generator, 60, 2).numpy()
    model = AffinityClustering(4, k=5).fit(x)
    rows = torch.from_numpy(x)
    first = agglomerate(affinity_graph(rows, 5), 10**6).labels.numpy()
    joins = int((model.distances_ == 0).sum())
    assert joins == len(x) - (first.max() + 1)
    parts = AgglomerativeClustering(n_clusters=int(first.max()) + 1)
    nodes = {i: {i} for i in range(len(x))}
    for t, (a, b) in enumerate(model.children_[:joins]):
        nodes[len(x) + t] = nodes.pop(a) | nodes.pop(b)
    assert len(nodes) == parts.n_clusters
    assert all(len(set(first[list(members)])) == 1 for members in nodes.values())


def test_noise_and_new_rows(generator):
    x = points(generator, 200, 3, clusters=3, spread=0.05).numpy()
    x[-2:] += 50
    model = AffinityClustering(3, k=8, min_size=10, small="noise").fit(x)
    assert (model.labels_[-2:] == -1).all()
    assert model.cluster_centers_.shape == (3, 3)
    found = model.labels_ >= 0
    assert np.array_equal(model.predict(x)[found], model.labels_[found])
    all_noise = AffinityClustering(40, k=8, min_size=150, small="noise").fit(x)
    assert all_noise.n_clusters_ == 0
    assert (all_noise.predict(x) == -1).all()
    assert AffinityClustering(40, k=8, min_size=150).fit(x).n_clusters_ == 1


def test_fewer_rows_than_neighbours_and_than_clusters():
    x = np.array([[0.0], [1.0], [5.0], [6.0]])
    assert AffinityClustering(2).fit(x).labels_.tolist() == [0, 0, 1, 1]
    assert AffinityClustering(4).fit(x).n_clusters_ == 2  # chains are never cut
    with pytest.raises(
        ValueError, match=r"AffinityClustering: 'n_clusters' must be at most the number of rows, 4, got"
    ):
        AffinityClustering(5).fit(x)
    with pytest.raises(ValueError, match=r"AffinityClustering: 'k' must be at least 1, got 0"):
        AffinityClustering(2, k=0).fit(x)
