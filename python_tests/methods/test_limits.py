"""Limits on final clusters: the same for methods that train and those that do not, in files, and for new images."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from support.clidata import pictures, rows, single_thread
from support.toys import ToyMerge, ToyPrior

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.methods import Affinity, KMeans, Method
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.training.loop import Training


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


def blobs(sizes, seed=0):
    y = np.repeat(np.arange(len(sizes)), sizes)
    centers = 6 * np.random.default_rng(3).normal(size=(len(sizes), 8))
    return (centers[y] + np.random.default_rng(seed).normal(size=(len(y), 8))).astype(np.float32), y


def fit(model, *data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        return model.fit(*data, progress=False, **options)


def test_sizes_hold_and_new_rows_follow(tmp_path):
    x, y = blobs([200, 60, 60, 4])
    model = KMeans(4, min_cluster_size=10, max_cluster_size=120).fit(x, y, run=tmp_path / "run")
    counts = np.bincount(model.labels_)
    assert sorted(counts[counts > 0])[-1] <= 120
    assert min(counts[counts > 0]) >= 10
    assert model.n_clusters_ == model.n_found > 3
    assert np.array_equal(model.predict(x), model.labels_)
    again = Clusterer.load(tmp_path / "run")
    assert np.array_equal(again.predict(x[::-1].copy()), model.labels_[::-1])
    assert np.array_equal(again.place(x).confidence, model.confidence_)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["sizes"]["merged"]) == 1
    assert metrics["diagnostics"]["n_clusters_used"] == model.n_found == 3 + len(metrics["sizes"]["split"])
    # Without limits it is four clusters, of which the tiny one is one: what is scored is what is written.
    assert metrics["scores"]["acc_hungarian"] < KMeans(4).fit(x, y).metrics_["scores"]["acc_hungarian"] == 1


def test_unsure_rows_are_in_no_cluster(tmp_path):
    x, y = blobs([80, 80, 80])
    x[:9] = (x[y == 0].mean(0) + x[y == 1].mean(0)) / 2
    plain = KMeans(3).fit(x, y)
    model = KMeans(3, min_confidence=0.3).fit(x, y, run=tmp_path / "run")
    assert np.array_equal(model.labels_ < 0, plain.confidence_ < 0.3)
    assert (model.labels_[:9] == -1).all()
    assert np.array_equal(model.clusters_, plain.labels_)
    assert np.array_equal(model.predict(x), model.labels_)
    assert (model.place(x).clusters >= 0).all()
    found = model.metrics_["unsure"]
    assert found["n"] == (model.labels_ < 0).sum() >= 9
    assert found["below"] == 0.3
    assert found["scores_of_the_rest"]["acc_hungarian"] == 1
    # Scores of all stand beside those of others, so they count every row.
    assert model.metrics_["scores"] == plain.metrics_["scores"]
    assert model.evaluate(x, y) == plain.evaluate(x, y)
    table = rows(tmp_path / "run" / "labels.csv")
    assert [int(row["cluster"]) for row in table] == model.labels_.tolist()
    placed = model.place(x)
    assert [float(row["distance"]) for row in table] == pytest.approx(placed.distance, rel=1e-5)
    assert [int(row["runner_up"]) for row in table] == placed.runner_up.tolist()
    assert (placed.runner_up != placed.clusters).all()
    with np.load(tmp_path / "run" / "embeddings.npz") as arrays:
        assert np.array_equal(arrays["labels"], model.labels_)
        assert np.array_equal(arrays["clusters"], model.clusters_)


@pytest.mark.parametrize("kind", [ToyMerge, ToyPrior])
def test_limits_change_without_training_again(kind, tmp_path, monkeypatch):
    x = pictures(40)[0]
    plain = fit(kind(), x, run=tmp_path / "run")
    before = (tmp_path / "run" / "labels.csv").read_bytes()
    monkeypatch.setattr(Training, "train", lambda *_: pytest.fail("trained again"))
    bound = float(np.median(plain.confidence_))
    limits = {"min_confidence": bound, "max_cluster_size": 9}
    model = fit(kind(**limits), x, run=tmp_path / "run", resume=True)
    assert (np.bincount(model.clusters_) <= 9).all()
    assert (model.labels_ < 0).any()
    assert "max_cluster_size: 9" in (tmp_path / "run" / "config.yaml").read_text()
    assert Method.load(tmp_path / "run").max_cluster_size == 9
    assert np.array_equal(Method.load(tmp_path / "run").predict(x), model.labels_)
    again = fit(kind(), x, run=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "labels.csv").read_bytes() == before
    assert np.array_equal(again.labels_, plain.labels_)


def test_probabilities_of_merged_clusters_add_up():
    x = pictures(40)[0]
    model = fit(ToyPrior(min_cluster_size=20), x)
    into = model.regrouping_["into"].numpy()
    assert model.n_clusters_ < fit(ToyPrior(), x).n_clusters_
    probabilities = model.predict_proba(x)
    summed = np.zeros_like(probabilities)
    np.add.at(summed.T, into, probabilities.T)
    assert np.allclose(model.confidence_, summed[np.arange(40), model.labels_], atol=1e-6)


def test_affinity_has_the_cuts_rule_alone():
    x, _ = blobs([60, 60, 60, 5])
    model = Affinity(3, min_cluster_size=10).fit(x)
    assert model.metrics_["conclusion"]["min_size"] == 10
    assert "sizes" not in model.metrics_
    assert np.bincount(model.labels_).min() >= 60


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_confidence": 1.5}, "KMeans: 'min_confidence' must be at most 1, got 1.5"),
        (
            {"min_cluster_size": 6, "max_cluster_size": 10},
            r"at most half of 'max_cluster_size', .* \(5\), got 6",
        ),
        ({"min_cluster_size": 99}, r"'min_cluster_size' must be at most the number of embeddings \(40\), got 99"),
        ({"max_cluster_size": 1}, "KMeans: 'max_cluster_size' must be at least 2, got 1"),
    ],
)
def test_limits_that_cannot_hold_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        KMeans(3, **limits).fit(blobs([20, 10, 10])[0])
