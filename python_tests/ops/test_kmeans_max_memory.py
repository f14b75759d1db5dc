"""kmeans(max_memory=...): blocks of rows of a mapped file, and the bits of all rows at once."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from deepclust_ext import kmeans
from deepclust_ext.ops import _rows


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 37 rows, whatever the memory."""
    monkeypatch.setattr("deepclust_ext.ops._kmeans_of_ranks.rows_within", lambda points, *_: min(37, len(points)))


def blobs(n=1500, d=7, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(9, d, generator=generator)
    return (centres[torch.randint(9, (n,), generator=generator)] + torch.randn(n, d, generator=generator)).to(dtype)


def check(x, clusters, **options):
    whole, found = kmeans(x, clusters, **options), kmeans(x, clusters, max_memory=1 << 30, **options)
    for name in ("centroids", "labels", "inertia", "n_iter", "n_empty"):
        assert torch.equal(getattr(found, name), getattr(whole, name)), name
        assert getattr(found, name).dtype == getattr(whole, name).dtype
    for a, b in zip(found.history, whole.history, strict=True):
        assert torch.equal(a.moved, b.moved)
        assert torch.equal(a.empty, b.empty)
        torch.testing.assert_close(a.objective, b.objective, rtol=1e-11, atol=1e-11)
    return whole


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"init": "random"}, {"spherical": True}, {"n_init": 2, "tol": 0.01}, {"max_iter": 0}], ids=str
)
def test_the_bits_of_all_rows_at_once(small_blocks, dtype, options):
    check(blobs(dtype=dtype), 20, **options)


def test_of_weights_strides_given_centroids_and_empty_clusters(small_blocks):
    x = blobs(700)
    weights = torch.rand(700, generator=torch.Generator().manual_seed(1)).where(torch.arange(700) % 3 > 0, 0.0)
    check(x, 12, sample_weight=weights)
    check(x, 12, init="random", sample_weight=weights)
    check(x.T.contiguous().T, 12)
    far = torch.cat([x[:6], 100 + x[6:12]])
    for empty in ("split", "farthest", "keep"):
        assert check(x, 12, init=far, empty=empty).n_empty > 0
    check(torch.ones(40, 2), 3)


def test_many_columns_are_searched_alike_in_blocks(monkeypatch):
    # So many rows and columns that the search of all rows projects them, and that of a block does not.
    monkeypatch.setattr("deepclust_ext.ops._kmeans_of_ranks.rows_within", lambda points, *_: 1000)
    check(blobs(5000, 200), 30, max_iter=4)


def test_refusals():
    x = blobs(600)
    for given, message in (
        ((x, 5, {"max_memory": 1000}), "'max_memory' must be at least [0-9]+ for 600 points of 7 columns"),
        ((x, 5, {"max_memory": 0}), "'max_memory' must be at least 1, got 0"),
        ((x[None], 5, {"max_memory": 1 << 30}), "'x' must be one matrix"),
        ((x, 5, {"max_memory": 1 << 30, "init": x[:5].double()}), "'init' must have x's dtype torch.float32 with"),
        ((x, 601, {"max_memory": 1 << 30}), "'n_clusters' must be at most the number of points, 600"),
    ):
        with pytest.raises(ValueError, match=f"kmeans: {message}"):
            kmeans(given[0], given[1], **given[2])
    with pytest.raises(TypeError, match="'max_memory' must be a whole number"):
        kmeans(x, 5, max_memory=0.5)


def test_rows_that_are_not_finite_are_named(small_blocks):
    x = blobs(600)
    x[512, 3] = float("nan")
    with pytest.raises(ValueError, match="kmeans: 'x' must be finite, got NaN or infinity in row 512"):
        kmeans(x, 5, max_memory=1 << 30)


def test_blocks_fill_the_memory_and_no_more():
    x = torch.empty(100_000, 64)
    steps = [_rows.rows_within(x, 10, memory << 20, False) for memory in (90, 120, 10_000)]
    assert 256 <= steps[0] < steps[1] < steps[2] == len(x)


# The most memory that is no file's, before and after, while rows of 64 MB in float16 are clustered.
SCRIPT = """
import sys, threading, numpy as np, torch
from deepclust_ext import kmeans
torch.set_num_threads(1)
x = torch.from_numpy(np.load(sys.argv[1], mmap_mode="c"))
kmeans(x[:2000], 8, max_iter=2, max_memory=100 << 20)
def own(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) << 10
most, done = [own()], threading.Event()
before = most[0]
def watch():
    while not done.wait(0.002):
        most[0] = max(most[0], own())
thread = threading.Thread(target=watch); thread.start()
kmeans(x, 8, init="random", max_iter=3, max_memory=100 << 20)
done.set(); thread.join()
print(most[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_below_the_bound(tmp_path):
    file = tmp_path / "rows.npy"
    np.save(file, blobs(125_000, 256, torch.float16).numpy())
    found = subprocess.run([sys.executable, "-c", SCRIPT, str(file)], capture_output=True, check=True)
    # All rows in float32 would be 128 MB.
    assert int(found.stdout) < 100 << 20
