"""cluster.KMeans(max_memory=...): rows of a mapped file, with the results of rows in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.opspecs import points

from deepclust_ext.cluster import KMeans
from deepclust_ext.ops import _kmeans_of_ranks, _rows

BOUND = 1 << 30


@pytest.fixture
def blocks(monkeypatch):
    """Blocks of 37 rows, whatever the memory; the longest that were read."""
    for module in ("deepclust_ext.ops._kmeans_of_ranks", "deepclust_ext.cluster.kmeans"):
        monkeypatch.setattr(f"{module}.rows_within", lambda x, *_, weighted=False: min(37, len(x)))
    original, lengths = _rows.Rows.__getitem__, []

    def watched(self, which):
        rows = original(self, which)
        lengths.append(len(rows))
        return rows

    monkeypatch.setattr(_rows.Rows, "__getitem__", watched)
    return lengths


@pytest.fixture
def mapped(tmp_path, generator):
    def make(dtype):
        file = tmp_path / f"{np.dtype(dtype)}.npy"
        np.save(file, points(generator, 400, 6).numpy().astype(dtype))
        return np.load(file, mmap_mode="r")

    return make


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "options", [{}, {"init": "random", "n_init": 2}, {"spherical": True}, {"init": "given"}], ids=str
)
def test_is_that_of_rows_in_memory(blocks, mapped, dtype, options):
    x = mapped(dtype)
    whole = x.astype(np.float32) if dtype == np.float16 else np.array(x)
    if options.get("init") == "given":
        options = {"init": whole[:5]}
    expected, model = KMeans(5, **options).fit(whole), KMeans(5, max_memory=BOUND, **options).fit(x)
    assert np.array_equal(model.labels_, expected.labels_)
    assert np.array_equal(model.cluster_centers_, expected.cluster_centers_)
    assert model.inertia_ == expected.inertia_
    assert model.n_features_in_ == 6
    assert np.array_equal(model.predict(x), expected.predict(whole))
    assert np.array_equal(model.transform(x), expected.transform(whole))
    assert model.transform(x).dtype == model.cluster_centers_.dtype == whole.dtype
    assert model.score(x) == expected.score(whole)
    blocks.clear()
    model.predict(x)
    model.transform(x)
    assert max(blocks) == 37


def test_weights_tensors_and_a_callable(blocks, mapped):
    x = mapped(np.float32)
    weights = np.arange(400) % 4
    expected = KMeans(4).fit(x, sample_weight=weights).labels_
    assert np.array_equal(KMeans(4, max_memory=BOUND).fit(x, sample_weight=weights).labels_, expected)
    tensor = torch.from_numpy(np.array(x))
    assert np.array_equal(KMeans(4, max_memory=BOUND).fit(tensor, sample_weight=weights).labels_, expected)

    def first(rows, k, random_state):
        return rows[:k]

    assert np.array_equal(
        KMeans(4, init=first, max_memory=BOUND).fit_predict(x), KMeans(4, init=first).fit_predict(np.array(x))
    )


def test_refusals(mapped):
    x = mapped(np.float32)
    for given, error, message in (
        (x.tolist(), TypeError, "'X' must be an array or a tensor of float16, float32 or float64 with .*got list"),
        (x.astype(int), TypeError, "'X' must be an array or a tensor .*got memmap of int64"),
        (x[0], ValueError, r"'X' must have shape \(N, d\), neither of them 0, got \(6,\)"),
    ):
        with pytest.raises(error, match=f"KMeans: {message}"):
            KMeans(4, max_memory=BOUND).fit(given)
    with pytest.raises(
        ValueError, match=r"'max_memory' must be at least [0-9]+ for 400 points of 6 columns and 4 clus"
    ):
        KMeans(4, max_memory=1000).fit(x)
    model = KMeans(4, max_memory=BOUND).fit(x)
    with pytest.raises(ValueError, match="X has 5 features, but KMeans is expecting 6"):
        model.predict(x[:, :5])
    bad = np.array(x)
    bad[17, 2] = np.nan
    for use in (model.fit, model.predict):
        with pytest.raises(ValueError, match="must be finite, got NaN or infinity in row 17"):
            use(bad)


def test_the_module_reads_blocks_of_the_bound():
    assert _kmeans_of_ranks.rows_within(torch.empty(100_000, 64), 10, 90 << 20, False) < 100_000
