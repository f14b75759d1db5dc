"""Label-free diagnostics and churn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_score

from deepclust_ext.evaluate import churn, diagnostics, occupancy


def two_blobs(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, (rng.normal(size=(n, 3)) + 4 * labels[:, None]).astype(np.float32)


def test_occupancy_counts_empty_clusters():
    counts = occupancy(torch.tensor([0, 3, 3]), 5)
    assert counts.tolist() == [1, 0, 0, 2, 0]
    assert counts.dtype == np.int64


def test_a_clustering_by_hand():
    result = diagnostics([0, 0, 1, 2], 4)
    assert (result["n_clusters_used"], result["largest_share"], result["smallest_share"]) == (3, 0.5, 0.0)
    assert result["occupancy_entropy"] == pytest.approx(1.5 * math.log(2) / math.log(4))
    assert result["silhouette"] is None


def test_equal_clusters_have_entropy_one():
    assert diagnostics(np.arange(12) % 4, 4)["occupancy_entropy"] == pytest.approx(1.0)


@pytest.mark.parametrize("n_clusters", [1, 10])
def test_a_collapsed_clustering(n_clusters):
    result = diagnostics(np.zeros(5, dtype=int), n_clusters, np.eye(5))
    assert (result["n_clusters_used"], result["occupancy_entropy"], result["silhouette"]) == (1, 0.0, None)
    assert result["largest_share"] == 1.0


def test_silhouette_is_scikit_learns():
    labels, embeddings = two_blobs(200)
    result = diagnostics(labels, 2, torch.from_numpy(embeddings))
    assert result["silhouette"] == pytest.approx(float(silhouette_score(embeddings, labels)))
    assert result["silhouette"] > 0.5


def test_silhouette_of_many_images_is_sampled_the_same_each_time():
    labels, embeddings = two_blobs(2500)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what must not move
    first, second = (diagnostics(labels, 2, embeddings)["silhouette"] for _ in range(2))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert first == second
    assert first == pytest.approx(float(silhouette_score(embeddings, labels)), abs=0.02)
    assert first != pytest.approx(float(silhouette_score(embeddings, labels)), abs=1e-9)


def test_a_larger_sample_is_all_images_and_says_so():
    labels, embeddings = two_blobs(2500)
    exact = diagnostics(labels, 2, embeddings, sample=2500)
    assert exact["silhouette"] == pytest.approx(float(silhouette_score(embeddings, labels)))
    assert exact["silhouette_images"] == 2500
    assert diagnostics(labels, 2, embeddings)["silhouette_images"] == 2000
    assert diagnostics(labels, 2)["silhouette_images"] is None
    with pytest.raises(ValueError, match="diagnostics: 'sample' must be at least 2, got 1"):
        diagnostics(labels, 2, embeddings, sample=1)


def test_singletons_have_no_silhouette():
    assert diagnostics([0, 1, 2], 3, np.eye(3))["silhouette"] is None


def test_churn_by_hand():
    assert churn([0, 0, 1, 1], [5, 5, 2, 2]) == 0.0
    assert churn([0, 0, 1, 1], [1, 1, 0, 1]) == pytest.approx(0.25)
    # Cluster 0 is split in two: the smaller half has no match.
    assert churn([0, 0, 0, 1], [0, 0, 2, 1]) == pytest.approx(0.25)
    assert churn([0, 0, 0, 0], [0, 1, 2, 3]) == pytest.approx(0.75)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_churn_is_symmetric_and_at_most_the_plain_share(pairs):
    previous, labels = map(np.array, zip(*pairs, strict=True))
    assert churn(previous, labels) == pytest.approx(churn(labels, previous))
    assert 0 <= churn(previous, labels) <= np.mean(previous != labels) + 1e-12


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"occupancy: 'n_clusters' must be a whole number, got 3\.0"):
        occupancy([0, 1], 3.0)
    with pytest.raises(ValueError, match="occupancy: 'n_clusters' must exceed every label, got 3 with a label 3"):
        occupancy([0, 3], 3)
    with pytest.raises(ValueError, match=r"diagnostics: 'embeddings' must have a row per label \(2\), got 3"):
        diagnostics([0, 1], 2, np.eye(3))
    with pytest.raises(ValueError, match="diagnostics: 'embeddings' must be finite, got NaN or infinity"):
        diagnostics([0, 1], 2, [[0.0], [float("nan")]])
    with pytest.raises(ValueError, match=r"diagnostics: 'embeddings' must have shape \(N, d\)"):
        diagnostics([0, 1], 2, np.zeros(2))
    with pytest.raises(ValueError, match="churn: 'labels' must be as long as 'previous'"):
        churn([0, 1], [0])
    with pytest.raises(ValueError, match="must hold at least one label, got none"):
        diagnostics([], 2)
