"""cluster.KMeans: scikit-learn's own checks, and what it adds to the function."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator
from support.opspecs import points

from deepclust_ext import kmeans
from deepclust_ext.cluster import KMeans


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"spherical": True, "init": "random", "n_init": 2}], ids=str)
def test_scikit_learns_checks(options):
    check_estimator(KMeans(3, **options))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_function(dtype, generator):
    x = points(generator, 300, 4).numpy().astype(dtype)
    model = KMeans(5, seed=3, n_init=2).fit(x)
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


@pytest.mark.parametrize("init", [None, len, [["a"] * 3] * 2, [[1.0], [2.0, 3.0]], np.ones((2, 3)) + 1j])
def test_a_start_that_is_no_array_of_numbers_is_named(init, generator):
    with pytest.raises(TypeError, match=r"KMeans: 'init' must be 'k-means\+\+', 'random' or a real array of shape"):
        KMeans(2, init=init).fit(points(generator, 50, 3))


@pytest.mark.filterwarnings("error")
def test_centroids_in_read_only_memory(generator):
    """As joblib gives them to its workers."""
    model = KMeans(3).fit(points(generator, 50, 3))
    want = model.labels_
    model.cluster_centers_.setflags(write=False)
    assert np.array_equal(model.predict(points(generator.manual_seed(generator.initial_seed()), 50, 3)), want)
