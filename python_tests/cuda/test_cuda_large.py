"""Beyond 2^31 elements: offsets that 32 bits cannot hold, by rows at the far end and between."""

from __future__ import annotations

import pytest
import torch
from support.rehearsal import REHEARSED

import deepclust_ext

pytestmark = [pytest.mark.cuda, pytest.mark.slow]
GIBIBYTES = 30


@pytest.fixture(autouse=True)
def memory():
    """Room for one input, its results and the definition's pieces; given back afterwards."""
    if not REHEARSED and torch.cuda.mem_get_info()[0] < GIBIBYTES << 30:
        pytest.skip(f"needs {GIBIBYTES} GiB of free memory on the GPU")
    yield
    if not REHEARSED:
        torch.cuda.empty_cache()


def noise(rows: int, cols: int, gpu: str) -> torch.Tensor:
    if not REHEARSED:
        assert rows * cols > 2**31
    return torch.randn(rows, cols, generator=torch.Generator(gpu).manual_seed(0), device=gpu)


def some_rows(rows: int, gpu: str) -> torch.Tensor:
    """Rows spread over all, and the last ones."""
    return torch.cat([torch.arange(0, rows, max(1, rows // 2000)), torch.arange(rows - 200, rows)]).to(gpu)


def test_the_nearest_centroid_of_nine_million_points(gpu):
    rows = 2_000 if REHEARSED else 9_000_000
    x = noise(rows, 256, gpu)
    centroids = x[torch.linspace(0, rows - 1, 50).long().to(gpu)] * 0.5
    labels, squared = deepclust_ext.kmeans_assign(x, centroids)
    chosen = some_rows(rows, gpu)
    table = (x[chosen].double()[:, None] - centroids.double()).square().sum(-1)
    torch.testing.assert_close(squared[chosen].double(), table.min(1).values, rtol=1e-5, atol=0)
    torch.testing.assert_close(table.gather(1, labels[chosen][:, None])[:, 0], table.min(1).values, rtol=1e-5, atol=0)


def test_the_neighbours_among_seventeen_million_points(gpu):
    rows, queries, k = (3_000, 40, 5) if REHEARSED else (17_000_000, 256, 10)
    x = noise(rows, 128, gpu)
    planted = rows - 1 - 3 * torch.arange(queries, device=gpu)  # beyond 2^31 elements, all but the first few
    planted[: queries // 2] = planted[: queries // 2] // 4
    query = x[planted] + 0.01
    values, indices = deepclust_ext.knn(x, k, query=query)
    assert torch.equal(indices[:, 0], planted)
    chosen = torch.arange(0, queries, max(1, queries // 16), device=gpu)
    best = torch.full((len(chosen), k), torch.inf, dtype=torch.float64, device=gpu)
    for part in x.split(500_000):
        squared = torch.cdist(
            query[chosen].double(), part.double(), compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        best = torch.cat([best, squared], 1).topk(k, largest=False).values
    torch.testing.assert_close(values[chosen].double(), best, rtol=1e-5, atol=1e-6)
    own = (x[indices[chosen]].double() - query[chosen].double()[:, None]).square().sum(-1)
    torch.testing.assert_close(own, best, rtol=1e-5, atol=1e-6)
