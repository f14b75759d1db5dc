"""Random graphs for the tests of agglomerate: weights that float64 sums exactly, ties, isolated and equal points."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext import AffinityGraph

STEP = 2**-10  # sums of products of such weights have no rounding in float64


def random_graph(generator: torch.Generator, n: int, k: int, levels: int = 1024) -> AffinityGraph:
    """Neighbours of random points, some of them copies, with weights of so many levels: few of them make ties."""
    x = torch.randint(0, 9, (n, 2), generator=generator).double()
    distances = torch.cdist(x, x).fill_diagonal_(torch.inf) + 1e-3 * torch.rand(n, n, generator=generator)
    indices = distances.topk(k, largest=False).indices
    weights = (torch.rand(n, k, generator=generator).double() * (levels + 1)).floor() * (1024 // levels) * STEP
    return AffinityGraph(indices, weights.clamp(max=1.0), torch.ones((), dtype=torch.float64))


def random_labels(generator: torch.Generator, n: int, m: int) -> Tensor:
    """Clusters 0 to m - 1, each with a member."""
    labels = torch.cat([torch.arange(m), torch.randint(0, m, (n - m,), generator=generator)])
    return labels[torch.randperm(n, generator=generator)]
