"""k-means by the tensor-core filter, on a GPU: the plain kernel, which serves fewer points, has the same bits."""

from __future__ import annotations

import pytest
import torch

import deepclust_ext

pytestmark = pytest.mark.cuda

PLAIN = 4000  # points: too few for the filter


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("depth", [16, 37, 256])
@pytest.mark.parametrize("clusters", [64, 300, 1000])
def test_the_bits_are_those_of_the_plain_kernel(clusters, depth, dtype, gpu):
    """Near centroids, and more copies of one than the filter has places for."""
    generator = torch.Generator().manual_seed(depth)
    x = torch.randn(9000, depth, generator=generator)
    centroids = x[:clusters] + 0.1 * torch.randn(clusters, depth, generator=generator)
    centroids[20:50] = x[7]
    x[3000:3100] = x[7]
    x, centroids = x.to(gpu, dtype), centroids.to(gpu, dtype)
    found = deepclust_ext.kmeans_assign(x, centroids)
    for first in range(0, len(x), PLAIN):
        plain = deepclust_ext.kmeans_assign(x[first : first + PLAIN].clone(), centroids)
        assert torch.equal(found.labels[first : first + PLAIN], plain.labels)
        assert torch.equal(found.squared_distances[first : first + PLAIN], plain.squared_distances)


def test_kmeans_assigns_by_its_centroids(gpu):
    x = torch.randn(2, 6000, 24, generator=torch.Generator().manual_seed(0)).to(gpu)
    result = deepclust_ext.kmeans(x, 80, max_iter=7, seed=1)
    for item in range(2):
        for first in range(0, 6000, PLAIN):
            plain = deepclust_ext.kmeans_assign(x[item, first : first + PLAIN].clone(), result.centroids[item])
            assert torch.equal(result.labels[item, first : first + PLAIN], plain.labels)
    again = deepclust_ext.kmeans(x, 80, max_iter=7, seed=1)
    assert torch.equal(again.centroids, result.centroids)
