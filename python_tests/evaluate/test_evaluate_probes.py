"""Probes of features and the k-means baseline."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from deepclust_ext.evaluate import kmeans_pixels, knn_accuracy, linear_probe


def blobs(n, seed=0, n_classes=3, noise=0.6):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    return (np.eye(n_classes, 5)[y] * 3 + noise * rng.normal(size=(n, 5))).astype(np.float32), y


def knn_by_definition(train, y_train, test, y_test, k, temperature):
    correct = 0
    for x, y in zip(test, y_test, strict=True):
        cosines = [float(x @ t) / (np.linalg.norm(x) * np.linalg.norm(t)) for t in train]
        nearest = sorted(range(len(train)), key=lambda j: -cosines[j])[:k]
        votes = [
            sum(math.exp(cosines[j] / temperature) for j in nearest if y_train[j] == c) for c in range(max(y_train) + 1)
        ]
        correct += int(np.argmax(votes) == y)
    return correct / len(y_test)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (7, 2.0), (40, 0.5)])
def test_knn_is_its_definition(k, temperature):
    train, test = blobs(40, 0, noise=2.0), blobs(30, 1, noise=2.0)
    expected = knn_by_definition(*train, *test, k, temperature)
    assert knn_accuracy(*train, *test, k=k, temperature=temperature) == pytest.approx(expected)
    assert 0.3 < expected < 1


def test_knn_weighs_near_neighbours_more():
    # One neighbour of class 1 at cosine 1, two of class 0 at cosine .8: the votes cross at tau = .2 / ln 2.
    train = [[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]]
    assert knn_accuracy(train, [1, 0, 0], [[3.0, 0.0]], [1], k=3, temperature=0.28) == 1.0
    assert knn_accuracy(train, [1, 0, 0], [[3.0, 0.0]], [1], k=3, temperature=0.30) == 0.0


def test_knn_takes_what_there_is():
    train, test = blobs(20), blobs(10, 1)
    assert knn_accuracy(*train, *test, k=200) == knn_accuracy(*train, *test, k=20)
    as_tensors = [torch.as_tensor(a) for a in (*train, *test)]
    assert knn_accuracy(*as_tensors) == knn_accuracy(*train, *test)
    assert knn_accuracy(as_tensors[0].bfloat16(), train[1], as_tensors[2].half(), test[1], k=5) == 1.0
    assert knn_accuracy([[1, 0], [0, 1]], [3, 5], [[2, 1]], [3], k=1) == 1.0


def test_knn_survives_a_tiny_temperature_and_zero_rows():
    assert knn_accuracy([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[0.0, 2.0]], [1], temperature=1e-6) == 1.0
    assert knn_accuracy([[0.0, 0.0], [1.0, 0.0]], [0, 1], [[1.0, 0.0]], [1], k=1) == 1.0


def test_a_class_that_only_the_test_set_has_is_never_right():
    assert knn_accuracy([[1.0]], [0], [[1.0]], [4]) == 0.0


def test_linear_probe_separates_what_is_separable():
    train, test = blobs(200, 0, noise=0.3), blobs(100, 1, noise=0.3)
    assert linear_probe(*train, *test) == 1.0
    labels = np.random.default_rng(0).integers(0, 3, 100)
    assert linear_probe(*train, test[0], labels) < 0.5


def test_linear_probe_is_deterministic_and_takes_tensors():
    train, test = blobs(100, 0, noise=2.0), blobs(50, 1, noise=2.0)
    first = linear_probe(*train, *test)
    assert linear_probe(*map(torch.as_tensor, train), *map(torch.as_tensor, test)) == first
    assert linear_probe(*train, *test, seed=5) == first


def test_linear_probe_does_not_depend_on_scale():
    train, test = blobs(100, 0, noise=2.0), blobs(50, 1, noise=2.0)
    scale = np.array([1e-3, 1.0, 1e3, 10.0, 5.0], dtype=np.float32)
    scaled = linear_probe(train[0] * scale, train[1], test[0] * scale, test[1])
    assert scaled == pytest.approx(linear_probe(*train, *test), abs=0.02)


@pytest.mark.parametrize("probe", [knn_accuracy, linear_probe])
def test_what_probes_refuse(probe):
    (x, y), name = blobs(6), probe.__name__
    with pytest.raises(ValueError, match=rf"{name}: 'y_train' must have a label per row \(6\), got 5"):
        probe(x, y[:5], x, y)
    with pytest.raises(ValueError, match=rf"{name}: 'y_test' must have a label per row \(6\), got 5"):
        probe(x, y, x, y[:5])
    with pytest.raises(ValueError, match=rf"{name}: 'test' must have as many columns as 'train' \(5\), got 4"):
        probe(x, y, x[:, :4], y)
    with pytest.raises(ValueError, match=rf"{name}: 'train' must have shape \(N, d\)"):
        probe(x[:0], y, x, y)
    with pytest.raises(ValueError, match=f"{name}: 'test' must be finite"):
        probe(x, y, x * np.inf, y)
    with pytest.raises(ValueError, match=f"{name}: 'y_train' must be non-negative"):
        probe(x, y - 3, x, y)


def test_other_refusals():
    x, y = blobs(6)
    with pytest.raises(ValueError, match="knn_accuracy: 'k' must be at least 1, got 0"):
        knn_accuracy(x, y, x, y, k=0)
    with pytest.raises(ValueError, match="knn_accuracy: 'temperature' must be positive, got 0"):
        knn_accuracy(x, y, x, y, temperature=0)
    with pytest.raises(ValueError, match="linear_probe: 'y_train' must hold at least two classes, got only 1"):
        linear_probe(x, np.ones(6, dtype=int), x, y)


def dark_and_bright(n=12):
    rng = np.random.default_rng(0)
    bright = np.arange(n) % 2
    return (bright[:, None, None, None] * 200 + rng.integers(0, 20, (n, 1, 4, 4))).astype(np.uint8), bright


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, lambda v: v.astype(np.float32) / 255])
def test_kmeans_pixels_finds_dark_and_bright(convert):
    images, bright = dark_and_bright()
    labels = kmeans_pixels(convert(images), 2, seed=0)
    assert labels.dtype == np.int64
    assert (labels == bright).all() or (labels == 1 - bright).all()


def test_kmeans_pixels_reproduces():
    images = np.random.default_rng(0).random((60, 5, 5))
    first = kmeans_pixels(images, 7, seed=1, n_init=1)
    assert (kmeans_pixels(images, 7, seed=1, n_init=1) == first).all()
    assert (kmeans_pixels(images, 7, seed=2, n_init=1) != first).any()


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30, 1e38])
def test_kmeans_pixels_takes_any_scale(scale):
    images = (np.arange(20)[:, None] % 2 + np.linspace(0, 0.5, 20)[:, None]) * np.float64(scale)
    labels = kmeans_pixels(images, 2, seed=0)
    assert len(np.unique(labels)) == 2
    assert len(np.unique(kmeans_pixels(0 * images, 2, seed=0))) == 1


def test_kmeans_pixels_is_as_good_as_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster")
    rows = np.random.default_rng(0).random((300, 6)).astype(np.float32)
    labels = kmeans_pixels(rows, 5, seed=0)
    inertia = sum(((rows[labels == k] - rows[labels == k].mean(0)) ** 2).sum() for k in range(5))
    assert inertia <= 1.02 * cluster.KMeans(5, n_init=10, random_state=0).fit(rows).inertia_


def test_what_kmeans_pixels_refuses():
    images, _ = dark_and_bright()
    with pytest.raises(ValueError, match=r"'n_clusters' must be between 1 and the number of images \(12\), got 13"):
        kmeans_pixels(images, 13, seed=0)
    with pytest.raises(ValueError, match="'n_clusters' must be between"):
        kmeans_pixels(images, 0, seed=0)
    with pytest.raises(ValueError, match="kmeans_pixels: 'images' must be finite"):
        kmeans_pixels(np.full((3, 2, 2), np.nan), 2, seed=0)
    with pytest.raises(TypeError, match="kmeans_pixels: 'n_clusters' must be a whole number, got '2'"):
        kmeans_pixels(images, "2", seed=0)
    with pytest.raises(ValueError, match=r"'images' must have shape \(N, \.\.\.\), none of it 0, got shape \(\d+"):
        kmeans_pixels(images[:0], 2, seed=0)


def test_scikit_learn_missing_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r"'sklearn' is not installed; run pip install 'deepclust_ext\[train\]'"):
        linear_probe(np.eye(2), [0, 1], np.eye(2), [0, 1])
