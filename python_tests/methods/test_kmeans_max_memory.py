"""methods.KMeans(max_memory=...): embeddings that stay in their file, and the files of a run on them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from deepclust_ext.cli import main
from deepclust_ext.methods import KMeans, direct

BOUND = 1 << 28


def write(path, n=5000, d=12, dtype=np.float16):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 4
    np.save(path, (4 * np.random.default_rng(9).normal(size=(4, d))[y] + rng.normal(size=(n, d))).astype(dtype))
    return path


@pytest.mark.parametrize("options", [{}, {"spherical": True, "min_cluster_size": 1300, "min_confidence": 0.2}], ids=str)
def test_files_are_those_of_rows_in_memory(tmp_path, options, monkeypatch):
    data, y = write(tmp_path / "rows.npy"), np.arange(5000) % 4
    expected = KMeans(5, **options).fit(data, y, run=tmp_path / "whole")
    lengths = []
    original = direct.EmbeddedRows.__getitem__

    def watched(self, index):
        found = original(self, index)
        lengths.append(len(found))
        return found

    monkeypatch.setattr(direct.EmbeddedRows, "__getitem__", watched)
    model = KMeans(5, max_memory=BOUND, **options).fit(data, y, run=tmp_path / "run")
    assert (tmp_path / "run" / "labels.csv").read_bytes() == (tmp_path / "whole" / "labels.csv").read_bytes()
    assert np.array_equal(model.cluster_centers_, expected.cluster_centers_, equal_nan=True)
    for name in ("scores", "diagnostics", "conclusion"):
        assert model.metrics_[name] == expected.metrics_[name]
    assert set(np.load(tmp_path / "run" / "embeddings.npz").files) <= {"labels", "confidence", "clusters"}
    # Of the embeddings no more than the means of clusters and the silhouette of a sample ask for.
    assert 2000 in lengths
    assert np.array_equal(model.predict(data), expected.predict(data))
    again = KMeans.load(tmp_path / "run")
    for a, b in zip(again.place(data), expected.place(data), strict=True):
        assert np.array_equal(a, b, equal_nan=True)
    assert np.array_equal(
        KMeans(5, max_memory=BOUND, **options).fit(data, y, run=tmp_path / "run", resume=True).labels_, model.labels_
    )


def test_what_does_not_go_with_a_bound_is_refused(tmp_path):
    x = np.load(write(tmp_path / "rows.npy"))
    for options, data, message in (
        ({"n_components": 3}, x, "'n_components' must be None with 'max_memory'"),
        ({"max_cluster_size": 2000}, x, "'max_cluster_size' must be None with 'max_memory'"),
        ({}, x.astype(np.float64), "'data' must be float32 or of half precision with 'max_memory'"),
        ({}, np.zeros((9, 8, 8), np.uint8), "'max_memory' must be None for images"),
        ({"max_memory": 1000}, x, "'max_memory' must be at least [0-9]+ for the labels of 5000 embeddings of 12 dim"),
    ):
        with pytest.raises(ValueError, match=f"KMeans: {message}"):
            KMeans(4, **{"max_memory": BOUND, **options}).fit(data)
    if torch.cuda.is_available():
        with pytest.raises(ValueError, match="'device' must be 'cpu' with 'max_memory'"):
            KMeans(4, max_memory=BOUND, device="cuda").fit(x)


def test_the_command_line_takes_a_bound(tmp_path, capfd):
    data, run = write(tmp_path / "rows.npy"), tmp_path / "run"
    command = ["fit", "kmeans", "--data", str(data), "--clusters", "4", "--out", str(run)]
    assert main([*command, "--max-memory", str(BOUND)]) == 0
    assert main(["predict", str(run), "--data", str(data), "--out", str(tmp_path / "p.csv")]) == 0
    assert (tmp_path / "p.csv").read_bytes() == (run / "labels.csv").read_bytes()
    assert main(["report", str(run)]) == 0
    assert "The run had a bound of memory" in (run / "report.html").read_text()
    assert main([*command, "--resume", "auto", "--set", "max_memory=1000"]) == 2
    assert "KMeans: 'max_memory' must be at least " in capfd.readouterr().err
    assert json.loads((run / "metrics.json").read_text())["n_images"] == 5000


# The most memory that is no file's while a file of 61 MB is clustered, from the command line to labels.csv.
SCRIPT = """
import sys, threading, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from deepclust_ext.cli import main
options = ["--clusters", "8", "--init", "random", "--n-init", "1", "--max-iter", "2", "--quiet"]
main(["fit", "kmeans", "--data", sys.argv[1], "--out", sys.argv[3], *options])
def own(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) << 10
most, done = [own()], threading.Event()
before = most[0]
def watch():
    while not done.wait(0.005):
        most[0] = max(most[0], own())
thread = threading.Thread(target=watch); thread.start()
main(["fit", "kmeans", "--data", sys.argv[2], "--out", sys.argv[4], "--max-memory", sys.argv[5], *options])
done.set(); thread.join()
print(most[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_below_the_bound(tmp_path):
    files, bound = [write(tmp_path / "few.npy", 300, 384), write(tmp_path / "many.npy", 80_000, 384)], 100 << 20
    command = [sys.executable, "-c", SCRIPT, *map(str, files), str(tmp_path / "a"), str(tmp_path / "b"), str(bound)]
    found = subprocess.run(command, capture_output=True, check=True)
    # In float32, as the search wants them, they are 123 MB, and in embeddings.npz as much again.
    assert int(found.stdout.split()[-1]) < bound
