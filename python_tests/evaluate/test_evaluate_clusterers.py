"""Other clusterers on given features, and the embedding of other data sets."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread

from deepclust_ext.evaluate import CLUSTERERS, acc_hungarian, cluster_features, compare_clusterers, scores, transfer


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


def blobs(n=90, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, d)) + 8 * np.eye(d)[y]).astype(np.float32), y


@pytest.mark.parametrize("clusterer", CLUSTERERS)
def test_every_clusterer_finds_what_is_apart(clusterer):
    x, y = blobs()
    labels = cluster_features(torch.from_numpy(x), 3, clusterer=clusterer)
    assert labels.dtype == np.int64
    assert acc_hungarian(labels, y) == 1.0
    assert np.array_equal(labels, cluster_features(x, 3, clusterer=clusterer))
    assert set(cluster_features(x, 1, clusterer=clusterer)) == {0}


def test_a_size_below_which_nothing_is_a_cluster():
    x, y = blobs(393)
    # Three strays, near to each other and far from all.
    x[:3] = 40 + 0.1 * x[:3]
    plain = cluster_features(x, 3, clusterer="affinity", min_size=1)
    sized = cluster_features(x, 3, clusterer="affinity", min_size=10)
    assert np.bincount(plain).min() == 3
    assert np.array_equal(cluster_features(x, 3, clusterer="affinity"), sized)
    assert np.bincount(sized).min() >= 10
    assert acc_hungarian(sized[3:], y[3:]) == 1.0


def test_scores_of_each():
    x, y = blobs()
    found = compare_clusterers(x, y, 2, clusterers=("ward", "kmeans"), seed=3)
    assert list(found) == ["ward", "kmeans"]
    for name, values in found.items():
        assert values == scores(cluster_features(x, 2, clusterer=name, seed=3), y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: cluster_features(x, 3, clusterer="best"), "'clusterer' must be one of"),
        (lambda x, y: cluster_features(x, 91), "'n_clusters' must be at most the number of rows"),
        (lambda x, y: cluster_features(x, 0), "'n_clusters' must be at least 1"),
        (lambda x, y: cluster_features(x * np.inf, 2), "'features' must be finite"),
        (lambda x, y: compare_clusterers(x, y[:-1], 3), "'y' must be as long"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(*blobs())


# Transfer


class Halves:
    """Stands for a fitted method: embeds images of its size by the mean of their four quarters."""

    def __init__(self, shape=(1, 8, 8)):
        self.image_shape_, self.seen = shape, []

    def transform(self, images):
        assert images.image_shape == self.image_shape_
        self.seen.append(images)
        side = self.image_shape_[1] // 2
        return torch.nn.functional.avg_pool2d(images.images.float().mean(1, keepdim=True), side).flatten(1).numpy()


def test_another_data_set_is_clustered_in_the_embedding():
    x, y = pictures(80, seed=2)
    found = transfer(Halves(), x, y, clusterers=("kmeans", "affinity"))
    assert list(found) == ["pixels", "embedding"]
    assert [list(each) for each in found.values()] == [["kmeans", "affinity"]] * 2
    assert found["embedding"]["kmeans"]["acc_hungarian"] == 1.0
    flat = x.reshape(80, -1).astype(np.float32)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    assert found["pixels"] == compare_clusterers(flat, y, 4, clusterers=("kmeans", "affinity"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)])
def test_images_are_brought_to_the_models_size_and_channels(shape):
    x, y = pictures(80, seed=2, size=16)
    model = Halves(shape)
    found = transfer(model, x, y, n_clusters=4)
    assert model.seen[0].image_shape == shape
    assert found["embedding"]["kmeans"]["acc_hungarian"] == 1.0


def test_what_cannot_be_transferred_to():
    with pytest.raises(ValueError, match="transfer: 'y' must be given"):
        transfer(Halves(), pictures(20)[0])
    model = types.SimpleNamespace(image_shape_=(1, 8, 8), transform=lambda images: np.zeros((20, 2), np.float32))
    with pytest.raises(ValueError, match="'n_clusters' must be at most"):
        transfer(model, *pictures(20), n_clusters=21)
