"""k-means where most of the points lies in a few directions: codes of those alone, and the labels are still exact.

Below 4,096 points no subspace is looked for, so that pieces of the points are labelled without one; all of them make
more than the six million pairs with centroids from which one is.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepclust_ext import kmeans, kmeans_assign

N, D, K = 8400, 320, 800


def few_directions(generator: torch.Generator, noise: float = 0.05) -> Tensor:
    """Points about a plane of 24 dimensions, turned."""
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
    spread = torch.cat([torch.ones(24), torch.full((D - 24,), noise)])
    return (torch.randn(N, D, generator=generator) * spread) @ turn


def in_pieces(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    pieces = [kmeans_assign(piece, centroids) for piece in x.split(2000)]
    return torch.cat([labels for labels, _ in pieces]), torch.cat([distances for _, distances in pieces])


def equal(x: Tensor, centroids: Tensor) -> None:
    for found, expected in zip(kmeans_assign(x, centroids), in_pieces(x, centroids), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_labels_and_distances_are_those_of_all_dimensions(dtype, generator):
    x = few_directions(generator).to(dtype)
    equal(x, x[torch.randperm(N, generator=generator)[:K]].float().to(x.dtype))


def test_clusters_that_differ_outside_of_the_directions_are_told_apart(generator):
    x = few_directions(generator, 0.01)
    # All centroids at one point of the plane: what is outside alone decides.
    centroids = x.mean(0) + 0.1 * torch.randn(K, D, generator=generator)
    equal(x, centroids)


def test_ties_go_to_the_lowest_index(generator):
    x = few_directions(generator)
    centroids = x[: K // 2].repeat(2, 1)
    labels, _ = kmeans_assign(x, centroids)
    assert int(labels.max()) < K // 2
    equal(x, centroids)


@pytest.mark.parametrize("scale", [1e-18, 1e15, 1e18])
def test_any_size_of_values(scale, generator):
    x = few_directions(generator) * scale
    equal(x, x[:K] + 0.1 * scale)


def test_points_far_from_the_origin(generator):
    x = few_directions(generator) + 1e4
    equal(x, x[:K].clone())


def test_one_row_that_is_far_away(generator):
    x = few_directions(generator)
    x[17] *= 1e6
    equal(x, x[:K].clone())


def test_points_in_fewer_directions_than_are_looked_for(generator):
    x = torch.randn(N, 3, generator=generator) @ torch.randn(3, D, generator=generator)
    equal(x, x[:K].clone())
    equal(torch.zeros(N, D), torch.zeros(K, D))


def test_iterations_are_the_same_for_any_number_of_threads(threads, generator):
    x = few_directions(generator)
    found = []
    for count in (1, 2):
        threads(count)
        found.append(kmeans(x, 200, seed=1, max_iter=8, n_init=1))
    assert torch.equal(found[0].labels, found[1].labels)
    assert torch.equal(found[0].centroids, found[1].centroids)
    assert torch.equal(found[0].labels, in_pieces(x, found[0].centroids)[0])
