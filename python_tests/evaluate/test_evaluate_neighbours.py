"""What an embedding keeps: purity of neighbours, trustworthiness, few dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as peer
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from deepclust_ext.evaluate import low_dimensional, neighbour_purity, neighbours, trustworthiness


def blobs(n=90, d=8, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, d)) + 2.5 * np.eye(d)[y]).astype(np.float32), y


def test_purity_is_the_share_of_neighbours_of_the_own_class():
    x, y = blobs()
    near = NearestNeighbors(n_neighbors=11).fit(x).kneighbors(return_distance=False)
    expected = {k: (y[near[:, :k]] == y[:, None]).mean() for k in (1, 5, 11)}
    assert neighbour_purity(x, y, ks=(5, 1, 11)) == pytest.approx(expected)
    assert 0.5 < expected[11] < expected[1] < 1
    assert neighbour_purity(torch.from_numpy(x), y + 7, ks=[1]) == {1: pytest.approx(expected[1])}
    # All others: as many of the own class as there are.
    assert neighbour_purity(x, y, ks=(89,)) == {89: pytest.approx(29 / 89)}


def test_an_image_is_no_neighbour_of_itself():
    assert neighbour_purity(np.zeros((4, 2)), [0, 1, 2, 3], ks=(1, 3)) == {1: 0.0, 3: 0.0}


@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("d", [1, 2, 8])
def test_trustworthiness_is_scikit_learns(k, d):
    x, _ = blobs()
    placed = PCA(d, random_state=0).fit_transform(x) if d < 8 else x
    assert trustworthiness(x, placed, k=k) == pytest.approx(peer(x, placed, n_neighbors=k), abs=1e-12)


def test_trustworthiness_far_from_the_origin_and_in_parts(monkeypatch):
    x, _ = blobs()
    placed = x[:, :2].astype(np.float64)
    far = x.astype(np.float64) + 1e6
    expected = trustworthiness(x, placed)
    assert expected < 0.99
    monkeypatch.setattr(neighbours, "_ENTRIES", 7 * 90)
    assert trustworthiness(far, placed) == pytest.approx(expected, abs=1e-3)
    assert trustworthiness(x, placed) == expected


def test_copies_share_the_better_rank():
    # Three points, twice each: the nearest of all is always the copy, and in any order.
    x = np.repeat(np.array([[0.0], [1.0], [10.0]]), 2, axis=0)
    assert trustworthiness(x, x, k=2) == 1.0


def test_few_dimensions_are_principal_components():
    x, y = blobs()
    data = np.concatenate([x, x**2], axis=1)
    found = low_dimensional(x, y, data, dims=(2, 8, 30), k=5)
    assert found.keys() == {2, 8}
    for d, figures in found.items():
        placed = PCA(d, random_state=0).fit_transform(x.astype(np.float64))
        near = KNeighborsClassifier(1).fit(placed, y).kneighbors(placed, 2, return_distance=False)[:, 1]
        assert figures["one_nn_error"] == pytest.approx((y[near] != y).mean())
        assert figures["trustworthiness"] == pytest.approx(peer(data, placed, n_neighbors=5))
    assert found[2]["trustworthiness"] < found[8]["trustworthiness"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: neighbour_purity(x, y[:-1]), "neighbour_purity: 'y' must have a label per row"),
        (lambda x, y: neighbour_purity(x, y, ks=(90,)), "neighbour_purity: 'ks' must be at most 89"),
        (lambda x, y: neighbour_purity(x, y, ks=()), "'ks' must hold at least one"),
        (lambda x, y: neighbour_purity(x * np.nan, y), "'features' must be finite"),
        (lambda x, y: trustworthiness(x, x[:-1]), "'embedding' must have a row per row"),
        (lambda x, y: trustworthiness(x, x, k=45), "'k' must be below half"),
        (lambda x, y: trustworthiness(x, x, k=0), "'k' must be at least 1"),
        (lambda x, y: low_dimensional(x, y, x, dims=(0,)), "'dims' must be at least 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(*blobs())
