"""Methods that train nothing: k-means of pixels and of embeddings, its files, its margins, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deepclust_ext
from deepclust_ext.data import EmbeddingData, load_data
from deepclust_ext.methods import DeepCluster, KMeans, Method
from deepclust_ext.runs import ResumeMismatchError


def blobs(n=300, k=4, d=12, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return (4 * np.random.default_rng(9).normal(size=(k, d))[y] + rng.normal(size=(n, d))).astype(dtype), y


@pytest.mark.parametrize("options", [{}, {"spherical": True}, {"n_components": 3}])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_finds_what_the_op_finds_and_labels_the_same_rows_alike(options, dtype):
    x, y = blobs(dtype=dtype)
    model = KMeans(4, seed=3, **options).fit(x, y)
    rows = torch.from_numpy(x).float()
    if "n_components" in options:
        rows = deepclust_ext.pca_whiten(rows, 3)[0]
    found = deepclust_ext.kmeans(rows, 4, n_init=10, max_iter=300, seed=3, spherical=options.get("spherical", False))
    assert np.array_equal(model.labels_, found.labels.numpy())
    assert np.array_equal(model.predict(x), model.labels_)
    assert np.array_equal(model.predict_proba(x).argmax(1), model.labels_)
    labels, confidence = model.predict_with_confidence(x)
    assert np.array_equal(confidence, model.confidence_)
    assert np.array_equal(labels, model.labels_)
    assert model.metrics_["scores"]["nmi"] == 1.0
    assert "kmeans_pixels" not in model.metrics_


def test_confidence_is_the_margin_between_the_two_nearest_centroids():
    x, _ = blobs()
    model = KMeans(4).fit(x)
    centroids = model.net_.centroids.double().numpy()
    distances = np.sort(np.linalg.norm(x[:, None].astype(np.float64) - centroids, axis=2), axis=1)
    assert np.allclose(model.confidence_, 1 - distances[:, 0] / distances[:, 1], atol=1e-5)
    middle, on = (centroids[0] + centroids[1]) / 2, centroids[2]
    _, confidence = model.predict_with_confidence(np.stack([middle, on]).astype(np.float32))
    assert confidence[0] < 1e-3
    assert confidence[1] > 0.999
    # One cluster has no border, two rows at one place have no margin.
    assert np.isfinite(KMeans(2).fit(np.zeros((5, 3), np.float32)).confidence_).all()


def test_large_data_get_fewer_starts(monkeypatch):
    from deepclust_ext.methods import kmeans as module

    assert [module.starts_of(n, 100) for n in (1, 30_000, 30_001, 300_000, 300_001, 10**9)] == [10, 10, 9, 1, 1, 1]
    x, _ = blobs()
    monkeypatch.setattr(module, "STARTS_WORTH", 2 * 300 * 4)
    model = KMeans(4).fit(x)
    assert model.metrics_["conclusion"]["n_init"] == 2
    found = deepclust_ext.kmeans(torch.from_numpy(x), 4, n_init=2, max_iter=300)
    assert model.metrics_["conclusion"]["inertia"] == found.inertia.item()
    assert KMeans(4, n_init=3).fit(x).metrics_["conclusion"]["n_init"] == 3


def test_images_are_clustered_by_their_pixels():
    images = load_data("digits")
    model = KMeans(10).fit(images)
    found = deepclust_ext.kmeans(images.images.flatten(1), 10, n_init=10, max_iter=300, seed=0)
    assert np.array_equal(model.labels_, found.labels.numpy())
    assert np.array_equal(model.predict(images.images[:50]), model.labels_[:50])
    as_bytes = (images.images * 255).round().to(torch.uint8)
    assert KMeans(10).fit(as_bytes).labels_.shape == (1797,)


def test_a_run_folder_is_read_back_and_resumed(tmp_path):
    x, y = blobs()
    first = KMeans(4).fit(x, y, run=tmp_path / "run")
    assert {"config.yaml", "labels.csv", "metrics.json", "embeddings.npz", "log.jsonl", "checkpoint.pt"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    again = KMeans.load(tmp_path / "run")
    assert np.array_equal(again.predict(x), first.labels_)
    assert again.get_params() == first.get_params()
    resumed = KMeans(4).fit(x, y, run=tmp_path / "run", resume="auto")
    assert np.array_equal(resumed.confidence_, first.confidence_)
    assert np.array_equal(resumed.predict(x), first.labels_)
    with pytest.raises(ResumeMismatchError, match="n_init was None and is now 3"):
        KMeans(4, n_init=3).fit(x, y, run=tmp_path / "run", resume=True)
    with pytest.raises(ResumeMismatchError, match="digest"):
        KMeans(4).fit(x + 1, run=tmp_path / "run", resume=True)
    # A result that is gone is made again, and is the same.
    before = (tmp_path / "run" / "labels.csv").read_bytes()
    (tmp_path / "run" / "labels.csv").unlink()
    KMeans(4).fit(x, y, run=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "labels.csv").read_bytes() == before
    first.save(tmp_path / "model.pt")
    assert np.array_equal(KMeans.load(tmp_path / "model.pt").predict(x), first.labels_)


def test_threads_and_dtypes_do_not_show(threads):
    x, _ = blobs(2000, d=33, dtype=np.float16)
    threads(1)
    one = KMeans(7, n_components=9).fit(x)
    threads(4)
    four = KMeans(7, n_components=9).fit(x)
    assert np.array_equal(one.labels_, four.labels_)
    assert np.array_equal(one.confidence_, four.confidence_)
    assert np.array_equal(KMeans(7, n_components=9).fit(x.astype(np.float32)).labels_, one.labels_)


def test_what_it_refuses():
    x, _ = blobs()
    with pytest.raises(ValueError, match=r"'n_clusters' must be at most the number of embeddings \(300\), got 301"):
        KMeans(301).fit(x)
    with pytest.raises(ValueError, match=r"'n_components' must be at most .* \(12\), got 13"):
        KMeans(4, n_components=13).fit(x)
    with pytest.raises(ValueError, match="must hold embeddings of 12 dimensions, as in training, got embeddings of 5"):
        KMeans(4).fit(x).predict(x[:, :5])
    with pytest.raises(
        ValueError, match=r"must hold embeddings of 12 dimensions, .* got images of 1 channels and 8 x 8"
    ):
        KMeans(4).fit(x).predict("digits")
    with pytest.raises(ValueError, match=r"DeepCluster: 'data' must be images, got embeddings of shape \(300, 12\)"):
        DeepCluster(4).fit(x)
    assert not issubclass(KMeans, Method)


def test_names_of_the_data_reach_the_file(tmp_path):
    x, y = blobs(6)
    names = tuple(f"a/{i}, b.jpg" for i in range(6))
    KMeans(2).fit(EmbeddingData(torch.from_numpy(x), torch.from_numpy(y), names), run=tmp_path)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[0] == "path,cluster,confidence,distance,runner_up,runner_up_distance"
    assert [line.rsplit(",", 5)[0] for line in lines[1:]] == [f'"{name}"' for name in names]
