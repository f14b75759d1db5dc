"""KMeans and Affinity: the functions on pixels or embeddings, with run folders, new images and no training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deepclust_ext import affinity_graph, agglomerate, cli
from deepclust_ext.methods import METHODS, Affinity, KMeans
from deepclust_ext.methods.fitting import Clusterer

KINDS = pytest.mark.parametrize("kind", [Affinity, KMeans])


def blobs(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of three patterns with noise."""
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(7).uniform(60, 190, (3, 8, 8))
    y = np.arange(n) % 3
    return np.clip(patterns[y] + generator.normal(0, 12, (n, 8, 8)), 0, 255).astype(np.uint8), y


@KINDS
def test_finds_patterns_and_labels_new_images(kind, tmp_path):
    x, y = blobs()
    model = kind(3).fit(x, y, run=tmp_path / "run")
    assert model.evaluate(x, y)["acc_hungarian"] == 1
    new, classes = blobs(seed=1)
    assert model.evaluate(new, classes)["acc_hungarian"] == 1
    assert np.array_equal(model.predict(x), model.labels_)
    assert model.n_clusters_ == 3
    assert np.allclose(model.predict_proba(new).sum(1), 1)
    assert model.transform(new).shape == (60, 64)
    for other in (Clusterer.load(tmp_path / "run"), kind(3).fit(x, y, run=tmp_path / "run", resume=True)):
        assert np.array_equal(other.labels_, model.labels_)
        assert np.array_equal(other.predict_proba(new), model.predict_proba(new))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["epochs"] == 0
    assert metrics["scores"]["acc_hungarian"] == 1
    assert ("kmeans_pixels" in metrics) == (kind is Affinity)
    assert len((tmp_path / "run" / "labels.csv").read_text().splitlines()) == 61


def test_affinity_is_the_functions_on_normalised_pixels():
    x, _ = blobs(200)
    rows = torch.from_numpy(x).flatten(1).float() / 255
    rows = torch.nn.functional.normalize(rows - rows.double().mean(0).float())
    for options, rule in (({}, {"lam": 0.0, "min_size": 5}), ({"lam": 1.0, "kc": 3, "min_cluster_size": 1}, {"kc": 3})):
        model = Affinity(4, k=9, **options).fit(x)
        want = agglomerate(affinity_graph(rows, 9), 4, x=rows, **rule)
        assert np.array_equal(model.labels_, want.labels.numpy())


def test_outliers_take_no_places():
    x, y = blobs()
    x[:2] = 255 - 255 * np.eye(8, dtype=np.uint8)
    model = Affinity(3, k=6, min_cluster_size=5).fit(x)
    assert len(np.unique(np.stack([y[2:], model.labels_[2:]]), axis=1)[0]) == 3
    assert Affinity(3, k=6).fit(x).metrics_["conclusion"]["min_size"] == 2


def test_images_that_are_all_the_same():
    x = np.full((40, 4, 4), 9, dtype=np.uint8)
    with pytest.warns(Warning, match="collapsed"):
        model = Affinity(2).fit(x)
    assert (model.labels_ == 0).all()
    assert np.isfinite(model.predict_proba(x)).all()


@KINDS
@pytest.mark.parametrize("components", [None, 5])
def test_embeddings_are_clustered_like_pixels(kind, components):
    x, y = blobs(90)
    rows = (x.reshape(90, -1) / 255).astype(np.float16)
    model = kind(3, n_components=components).fit(rows, y)
    assert model.metrics_["scores"]["acc_hungarian"] == 1
    assert np.array_equal(model.predict(rows), model.labels_)
    assert model.predict_proba(rows).shape == (90, 3)
    assert model.transform(rows).shape == (90, components or 64)


@pytest.mark.parametrize("name", ["affinity", "kmeans"])
def test_on_the_command_line(name, tmp_path, capsys):
    x, y = blobs()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    out = str(tmp_path / "run")
    assert cli.main(["fit", name, "--data", str(tmp_path / "data.npz"), "--out", out, "--clusters", "3"]) == 0
    shown = capsys.readouterr().out
    assert "3 clusters, no training" in shown
    assert "1.0000" in shown
    assert cli.main(["predict", out, "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "p.csv")]) == 0
    assert METHODS[name] in (Affinity, KMeans)
