"""cluster.KMeans: scikit-learn's own checks, and what it adds to the function."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator
from support.opspecs import points

from deepclust_ext import kmeans
from deepclust_ext.cluster import AffinityClustering, KMeans


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"spherical": True, "init": "random", "n_init": 2}], ids=str)
def test_scikit_learns_checks(options):
    # scikit-learn's own KMeans is excused here too: other rows draw another start.
    excused = {"check_sample_weight_equivalence_on_dense_data": "a start depends on how rows are written down"}
    if "expected_failed_checks" in inspect.signature(check_estimator).parameters:
        check_estimator(KMeans(3, **options), expected_failed_checks=excused)
    else:
        check_estimator(KMeans(3, **options))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_function(dtype, generator):
    x = points(generator, 300, 4).numpy().astype(dtype)
    model = KMeans(5, random_state=3, n_init=2).fit(x)
    result = kmeans(torch.from_numpy(x), 5, max_iter=100, seed=3, n_init=2)
    assert np.array_equal(model.labels_, result.labels.numpy())
    assert np.array_equal(model.cluster_centers_, result.centroids.numpy())
    assert model.cluster_centers_.dtype == model.transform(x).dtype == dtype
    assert model.inertia_ == result.inertia.item()
    assert len(model.history_) == model.n_iter_ == result.n_iter.item()
    assert model.history_[0]["moved"] == 1
    assert np.array_equal(model.predict(x), model.labels_)
    assert model.score(x) == pytest.approx(-model.inertia_, rel=1e-5)
    assert np.array_equal(model.transform(x).argmin(1), model.labels_)
    assert np.array_equal(clone(model).fit_predict(x), model.labels_)


def test_arrays_tensors_and_read_only_memory(generator):
    x = points(generator, 50, 3)
    want = KMeans(3, init=x[:3].numpy()).fit(x.numpy())
    locked = x.numpy().copy()
    locked.setflags(write=False)
    for other in (x, locked, np.asfortranarray(locked), x.tolist()):
        assert np.array_equal(KMeans(3, init=x[:3].numpy()).fit(other).labels_, want.labels_)


def test_spherical_predicts_by_direction(generator):
    x = points(generator, 200, 4).numpy() - 3
    model = KMeans(6, spherical=True).fit(x)
    assert np.array_equal(model.predict(x * 7), model.labels_)
    assert np.allclose(np.linalg.norm(model.cluster_centers_, axis=1), 1)


def test_more_clusters_than_rows_raises():
    with pytest.raises(ValueError, match=r"'n_clusters' must be at most the number of points, 4, got 8"):
        KMeans().fit(np.zeros((4, 2)))


def test_importing_it_without_scikit_learn_names_the_extra():
    code = """
import sys
sys.modules["sklearn"] = None
import deepclust_ext
try:
    import deepclust_ext.cluster
except ImportError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'deepclust_ext[train]'" in output


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1, 1e25, 1e37])
def test_spherical_predicts_the_labels_of_the_fit_at_any_length(scale, generator):
    """The squares of such rows leave the range of float32; their directions do not."""
    x = (points(generator, 200, 4).float() * scale).numpy()
    model = KMeans(6, spherical=True).fit(x)
    assert np.array_equal(model.predict(x), model.labels_)
    assert model.score(x) == pytest.approx(-model.inertia_, rel=1e-5)


def test_tensors_that_numpy_cannot_take_as_they_are(generator):
    x = points(generator, 50, 3).bfloat16()
    want = KMeans(3, init=x[:3].double().numpy()).fit(x.double().numpy())
    for init in (x[:3], x[:3].float().requires_grad_()):
        assert np.array_equal(KMeans(3, init=init).fit(x).labels_, want.labels_)


@pytest.mark.parametrize("init", [None, [["a"] * 3] * 2, [[1.0], [2.0, 3.0]], np.ones((2, 3)) + 1j])
def test_a_start_that_is_no_array_of_numbers_is_named(init, generator):
    with pytest.raises(TypeError, match=r"KMeans: 'init' must be 'k-means\+\+', .* a real array of shape"):
        KMeans(2, init=init).fit(points(generator, 50, 3))


@pytest.mark.filterwarnings("error")
def test_centroids_in_read_only_memory(generator):
    """As joblib gives them to its workers."""
    model = KMeans(3).fit(points(generator, 50, 3))
    want = model.labels_
    model.cluster_centers_.setflags(write=False)
    assert np.array_equal(model.predict(points(generator.manual_seed(generator.initial_seed()), 50, 3)), want)


def test_weights_count_rows(generator):
    x = points(generator, 90, 3).numpy()
    counts = torch.randint(1, 4, (90,), generator=generator).numpy()
    model = KMeans(4, init=x[:4]).fit(x, sample_weight=counts)
    repeated = KMeans(4, init=x[:4]).fit(np.repeat(x, counts, axis=0))
    assert np.array_equal(np.repeat(model.labels_, counts), repeated.labels_)
    np.testing.assert_allclose(model.cluster_centers_, repeated.cluster_centers_)
    assert model.inertia_ == pytest.approx(repeated.inertia_)
    assert model.score(x, sample_weight=counts) == pytest.approx(-repeated.inertia_)
    assert np.array_equal(KMeans(4, init=x[:4]).fit_predict(x, sample_weight=list(counts)), model.labels_)
    with pytest.raises(ValueError, match="kmeans: 'sample_weight' must be at least 0"):
        KMeans(4).fit(x, sample_weight=-counts)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_rows_of_no_weight_are_not_drawn(init, generator):
    x = points(generator, 40, 3).numpy()
    weights = np.arange(40) % 2
    for seed in range(5):
        centers = KMeans(12, init=init, max_iter=0, random_state=seed).fit(x, sample_weight=weights).cluster_centers_
        assert not (centers[:, None] == x[::2]).all(-1).any()


def test_random_state(generator):
    x = points(generator, 60, 3).numpy()

    def start(state):
        return KMeans(5, max_iter=0, random_state=state).fit(x).cluster_centers_

    assert np.array_equal(start(7), start(np.int64(7)))
    states = np.random.RandomState(7), np.random.RandomState(7)
    assert np.array_equal(start(states[0]), start(states[1]))
    assert not np.array_equal(start(states[0]), start(states[0]))
    np.random.seed(3)  # noqa: NPY002 - it is the global state that None means
    first = start(None)
    np.random.seed(3)  # noqa: NPY002
    assert np.array_equal(start(None), first)


def test_a_callable_draws_every_start(generator):
    x, calls = points(generator, 60, 3).numpy(), []

    def init(rows, n_clusters, random_state):
        calls.append(n_clusters)
        return rows[random_state.permutation(len(rows))[:n_clusters]]

    model = KMeans(5, init=init, n_init=4).fit(x)
    assert calls == [5] * 4
    assert np.array_equal(KMeans(5, init=init, n_init=4).fit(x).labels_, model.labels_)
    assert model.inertia_ <= KMeans(5, init=init, n_init=1).fit(x).inertia_
    with pytest.raises(ValueError, match=r"'init' must have shape .*, got \(4, 3\)"):
        KMeans(5, init=lambda rows, k, random_state: rows[:4]).fit(x)


def test_warnings(generator):
    x = points(generator, 60, 3).numpy()
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(2\) found smaller than n_clusters \(3\)"):
        KMeans(3).fit(np.repeat(x[:2], 4, axis=0))
    with pytest.warns(RuntimeWarning, match="performing only one init in KMeans instead of n_init=4"):
        KMeans(3, init=x[:3], n_init=4).fit(x)


@pytest.mark.parametrize("estimator", [KMeans(2), AffinityClustering(2)], ids=lambda e: type(e).__name__)
def test_sparse_rows_are_refused(estimator):
    with pytest.raises(TypeError, match=r"'X' must be dense, got a sparse csr_array of shape \(3, 3\); convert"):
        estimator.fit(sparse.csr_array(np.eye(3)))


def test_algorithm_is_checked():
    with pytest.raises(ValueError, match="KMeans: 'algorithm' must be one of 'lloyd', 'elkan', got 'full'"):
        KMeans(2, algorithm="full").fit(np.eye(3))
