"""k-NN by the tensor-core filter, on a GPU: the plain kernels, which serve fewer candidates, have the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import deepclust_ext

pytestmark = pytest.mark.cuda

PLAIN = 4000  # candidates: too few for the filter


def in_pieces(x: Tensor, query: Tensor, k: int, metric: str, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k best of what the plain kernels find in pieces of x; `own`: rows that are not their own neighbours."""
    values, indices = [], []
    for first in range(0, len(x), PLAIN):
        piece = x[first : first + PLAIN]
        found = deepclust_ext.knn(piece, min(k + 1, len(piece)), query=query, metric=metric)
        values.append(found[0])
        indices.append(found[1] + first)
    value, index = torch.cat(values, 1), torch.cat(indices, 1)
    order = index.argsort(1)
    cost = value.gather(1, order) if metric == "euclidean" else -value.gather(1, order)
    if own is not None:
        cost = cost.masked_fill(index.gather(1, order) == own[:, None], float("inf"))
    order = order.gather(1, cost.argsort(1, stable=True)[:, :k])
    return value.gather(1, order), index.gather(1, order)


@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("depth", [16, 37, 256])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner"])
def test_the_bits_are_those_of_the_plain_kernels(metric, depth, k, gpu):
    """Rows sorted by group, as labelled data is; copies, more of them than the filter has places for."""
    generator = torch.Generator().manual_seed(depth)
    x = (
        torch.randn(9000, depth, generator=generator)
        + 3 * torch.randn(9, depth, generator=generator).repeat(1000, 1).sort(0)[0]
    )
    x[2000:4500] = x[17]
    x, query = x.to(gpu), torch.randn(300, depth, generator=generator).to(gpu)
    for asked, own in ((query, None), (None, torch.arange(len(x), device=gpu))):
        values, indices = deepclust_ext.knn(x, k, query=asked, metric=metric)
        want_values, want_indices = in_pieces(x, x if asked is None else asked, k, metric, own)
        assert torch.equal(indices, want_indices)
        assert torch.equal(values, want_values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_and_items_of_a_batch(dtype, gpu):
    x = torch.randn(2, 5000, 40, generator=torch.Generator().manual_seed(0)).to(gpu, dtype)
    values, indices = deepclust_ext.knn(x, 7)
    for item in range(2):
        want = in_pieces(x[item], x[item], 7, "euclidean", torch.arange(5000, device=gpu))
        assert torch.equal(values[item], want[0])
        assert torch.equal(indices[item], want[1])
