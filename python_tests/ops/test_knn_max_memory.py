"""knn and affinity_graph with max_memory: blocks of rows of a mapped file, and the bits of all rows at once."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from deepclust_ext import affinity_graph, knn
from deepclust_ext.ops import _grouped_knn, _raw


def points(n=300, d=13, seed=0, dtype=torch.float32):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    x[n // 2 :] = x[: n - n // 2].clone()  # copies, which tie, in other blocks
    x[::7] = 0.0
    return x.to(dtype)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("step", [1, 37, 256])
def test_the_bits_of_all_rows_at_once(monkeypatch, metric, dtype, step):
    if step == 1 and dtype != torch.float32:
        return
    n = 60 if step == 1 else 300
    x, query = points(n, dtype=dtype), points(41, seed=1, dtype=dtype)
    cases = [(9, {}), (12, {"query": query}), (n - 1, {}), (n, {"query": query[:3]})]
    expected = [knn(x, k, metric=metric, **options) for k, options in cases]
    blocks = watch(monkeypatch, step)
    for (k, options), (values, indices) in zip(cases, expected, strict=True):
        found = knn(x, k, metric=metric, max_memory=1 << 30, **options)
        assert found.values.dtype == values.dtype
        assert torch.equal(found.values, values)
        assert torch.equal(found.indices, indices)
    assert max(blocks) == min(step, n)


def watch(monkeypatch, step):
    """Blocks of so many rows whatever the memory, and the numbers of rows that searches are given."""
    monkeypatch.setattr(_grouped_knn, "rows_of_block", lambda *_: step)
    original, seen = _raw.knn, []

    def watched(points, query, k, metric):
        seen.extend((len(points), 0 if query is None else len(query)))
        return original(points, query, k, metric)

    monkeypatch.setattr(_raw, "knn", watched)
    return seen


def test_values_beyond_the_dtype_and_strides(monkeypatch):
    turned = points(90).T.contiguous().T
    # Of the first, squared distances are infinite, and ties all that orders them.
    cases = [(points(90) * 1e25, "euclidean"), (turned, "euclidean"), (turned[:, ::2], "cosine")]
    expected = [knn(x, 8, metric=metric) for x, metric in cases]
    watch(monkeypatch, 17)
    for (x, metric), (values, indices) in zip(cases, expected, strict=True):
        found = knn(x, 8, metric=metric, max_memory=1 << 30)
        assert torch.equal(found.values, values)
        assert torch.equal(found.indices, indices)


def test_the_affinity_graph_is_that_of_all_rows(monkeypatch):
    x = points(200)
    expected = affinity_graph(x, 7, a=0.8)
    watch(monkeypatch, 37)
    for found, whole in zip(affinity_graph(x, 7, a=0.8, max_memory=1 << 30), expected, strict=True):
        assert torch.equal(found, whole)


def test_refusals(monkeypatch):
    x = points()
    for given, options, message in (
        (x, {"max_memory": 1000}, "'max_memory' must be at least [0-9]+ for 300 points of 13 columns and k = 3"),
        (x, {"max_memory": 0}, "'max_memory' must be at least 1, got 0"),
        (x[None], {"max_memory": 1 << 30}, "'x' must be one matrix"),
        (x, {"max_memory": 1 << 30, "query": x.double()}, "'query' must have x's dtype torch.float32 with 'max_m"),
    ):
        with pytest.raises(ValueError, match=f"knn: {message}"):
            knn(given, 3, **options)
    for op in (knn, affinity_graph):
        with pytest.raises(TypeError, match=f"{op.__name__}: 'max_memory' must be a whole number"):
            op(x, 3, max_memory=0.5)
        with pytest.raises(ValueError, match=r"'k' must be .*299.*, got 300"):
            op(x, 300, max_memory=1 << 30)
    with pytest.raises(NotImplementedError, match="knn: 'max_memory' must be None inside torch"):
        torch.vmap(lambda each: knn(each, 3, max_memory=1 << 30))(x[None])
    x[271, 3] = float("nan")
    watch(monkeypatch, 37)
    with pytest.raises(ValueError, match="knn: 'x' must be finite, got NaN or infinity in row 271"):
        knn(x, 3, max_memory=1 << 30)
    with pytest.raises(ValueError, match="knn: 'query' must be finite, got NaN or infinity in row 271"):
        knn(points(), 3, query=x, max_memory=1 << 30)


def test_blocks_fill_the_memory_and_no_more():
    x = torch.empty(100_000, 64)
    steps = [_grouped_knn.rows_within("knn", x, None, 10, memory << 20) for memory in (64, 128, 10_000)]
    assert 256 <= steps[0] < steps[1] < steps[2] == len(x)


# The most memory that is no file's, before and after, while neighbours are searched among rows of a file.
SCRIPT = """
import sys, threading, numpy as np, torch
from deepclust_ext import affinity_graph, knn
torch.set_num_threads(1)
x = torch.from_numpy(np.load(sys.argv[1], mmap_mode="c"))
knn(x[:50], 3)
def own(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) << 10
def taken(op, bound):
    most, done = [own()], threading.Event()
    before = most[0]
    def watch():
        while not done.wait(0.002):
            most[0] = max(most[0], own())
    thread = threading.Thread(target=watch); thread.start()
    op(x, 5, max_memory=bound)
    done.set(); thread.join()
    return most[0] - before
print(*(taken(op, bound) for op, bound in ((knn, int(sys.argv[2])), (affinity_graph, int(sys.argv[2])), (knn, None))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_below_the_bound(tmp_path):
    file, bound = tmp_path / "rows.npy", 32 << 20
    # In groups and with copies, both of which the search gathers for itself.
    rows = points(5000, 768)
    rows[:2000] += 20
    np.save(file, rows.half().numpy())
    command = [sys.executable, "-c", SCRIPT, str(file), str(bound)]
    found = subprocess.run(command, capture_output=True, check=True)
    neighbours, graph, whole = map(int, found.stdout.split())
    assert neighbours < bound
    assert graph < bound
    assert whole > bound
